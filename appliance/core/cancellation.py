"""Cancellation: work that a caller owes even when it is cancelled.

A coroutine that was cancelled may still have something to give back: a hold, a claim. Awaiting
that in its `except` or `finally` is not enough, because a second cancellation would interrupt it.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, which runs to its end however often the caller is cancelled.

    The caller's cancellation is raised afterwards, in the place of the result or the error.

    Raises:
        asyncio.CancelledError: the caller was cancelled; `work` has ended.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # it was looked at: nobody else is there to be told of it
    raise cancelled
