"""Once: a value that is made at the first call, by one thread, and kept."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

T = TypeVar("T")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """Return what calls a function once; who calls meanwhile waits for the same value.

    `functools.cache` lets threads that come at the same time all call it. An error is not kept: the
    next call tries again.
    """
    lock = threading.Lock()
    made: list[T] = []

    @wraps(make)
    def made_once() -> T:
        if not made:
            with lock:
                if not made:
                    made.append(make())
        return made[0]

    return made_once
