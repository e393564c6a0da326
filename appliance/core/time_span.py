"""Time span: `30d` and the like, as operators write it."""

import re

UNITS_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
"""Seconds of each unit: minutes, hours, days, weeks."""
_SPAN = re.compile(r"([1-9][0-9]{0,6})([mhdw])")


def seconds_of(text: str) -> int:
    """Return the seconds of `90m`, `12h`, `30d` or `2w`; 0 for anything else."""
    match = _SPAN.fullmatch(text)
    return int(match[1]) * UNITS_S[match[2]] if match else 0
