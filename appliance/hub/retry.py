"""Retry: ask the hub once more when a question failed for a reason that passes.

Only for questions whose answer is short; the bodies of files go on where they ended (`fetch.py`).
"""

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from appliance.hub.remote import Interrupted

T = TypeVar("T")

PAUSES_S = (0.5, 2.0)
"""Pauses between the tries; after the last one the question has failed."""
PAUSE_MAX_S = 10.0
"""Longest pause, even if the hub's Retry-After asks for a longer one."""


class Asker(Protocol):
    """Who waits for the answer, and may cease to."""

    @property
    def cancelled(self) -> threading.Event:
        """Set when nobody waits any more."""
        ...

    def require_wanted(self) -> None:
        """Raise what ends the work when nobody waits any more."""
        ...


def asked(question: Callable[[], T], asker: Asker) -> T:
    """Return the answer to a question, which is asked at most three times.

    Raises:
        DownloadFailed: the hub refuses, or this machine cannot ask; it is not asked again.
        Interrupted: the connection broke or the hub was busy, each time.
    """
    for pause_s in PAUSES_S:
        try:
            return question()
        except Interrupted as error:
            asker.cancelled.wait(max(pause_s, min(error.wait_s, PAUSE_MAX_S)))
            asker.require_wanted()
    return question()
