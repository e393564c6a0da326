"""Failpoint: a named place in the code at which a test kills the process.

Owns which failpoint is armed. Without an armed one, reaching a failpoint costs one comparison.
"""

import os
import signal

NAMES = (
    "before_hold",
    "after_hold",
    "before_compute",
    "after_compute",
    "before_commit",
    "after_commit",
    "before_send",
    "after_send",
)
"""In the order in which a paid call reaches them."""
OF_BATCHES = ("before_results", "after_results", "before_end")
"""The same of a batch: its answers are written, are on the disk, and it ends."""

_armed: dict[str, int] = {}
"""The armed failpoint, at most one, and the remaining number of times until it kills."""


def arm(text: str) -> None:
    """Kill this process the nth time that it reaches a place: `"after_commit:3"`.

    Raises:
        ValueError: the place is not one of `NAMES`, or the number is not above zero.
    """
    name, _, times = text.partition(":")
    if name not in (*NAMES, *OF_BATCHES) or not times.isdecimal() or not int(times):
        raise ValueError(f"a failpoint is one of {', '.join(NAMES)}, a colon and a number")
    _armed.clear()
    _armed[name] = int(times)


def reach(name: str) -> None:
    """Kill this process with SIGKILL if this failpoint is armed and its count is reached."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
