"""Failpoint: a named place at which a test lets the process die.

Owns which one is armed. It does nothing in a server whose operator armed none: reaching one costs a
comparison.
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

_armed: dict[str, int] = {}
"""How often the place is still passed; one at most is armed."""


def arm(text: str) -> None:
    """Kill this process the nth time that it reaches a place: `"after_commit:3"`.

    Raises:
        ValueError: no such place, or no number above zero.
    """
    name, _, times = text.partition(":")
    if name not in NAMES or not times.isdecimal() or not int(times):
        raise ValueError(f"a failpoint is one of {', '.join(NAMES)}, a colon and a number")
    _armed.clear()
    _armed[name] = int(times)


def reach(name: str) -> None:
    """Die here if this is the place and the time; nothing is cleaned up (SIGKILL)."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
