"""Additions: models that are being added, each on a thread of its own.

Owns their number, what each does now, and how it is cancelled. A thread that hangs, as on a mount
that does not answer, keeps its place and nothing else: no other verb waits for it.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from appliance.catalog.addition import Progress, Stage
from appliance.core.cancellation import uninterrupted
from appliance.core.errors import InvalidRequest

T = TypeVar("T")

RUNNING_MAX = 3
"""Models that are added at once."""


class Cancelled(Exception):
    """Nobody waits for the addition any more."""


@dataclass(slots=True)
class Running:
    """One addition; its thread writes the fields, and any thread may read them."""

    source: str
    stage: Stage | None = None
    done: int = 0
    total: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def progress(self, stage: Stage, done: int, total: int) -> None:
        """Note what it does now.

        Raises:
            Cancelled: it is to end.
        """
        self.stage, self.done, self.total = stage, done, total
        if self.cancelled.is_set():
            raise Cancelled


class Additions:
    """All additions of one process that have not ended."""

    def __init__(self) -> None:
        self._running: list[Running] = []

    def __repr__(self) -> str:
        """Count what runs."""
        return f"<Additions [{len(self._running)} running]>"

    def all(self) -> list[Running]:
        """Return those that run."""
        return list(self._running)

    async def run(self, source: str, work: Callable[[Progress], T]) -> T:
        """Return the result of `work`, which runs on a thread of its own.

        When the caller is cancelled, `work` is told at its next step, and has ended when the
        cancellation goes on.

        Raises:
            InvalidRequest: too many run.
        """
        if len(self._running) >= RUNNING_MAX:
            raise InvalidRequest(
                f"{RUNNING_MAX} models are being added already; wait until one is done",
                param="path",
            )
        running, loop = Running(source), asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def carry_out() -> None:
            try:
                found = work(running.progress)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
                deliver = _refused(result, error)
            else:
                deliver = _answered(result, found)
            self._running.remove(running)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(deliver)

        self._running.append(running)
        # A daemon: one that hangs must not keep the process from ending.
        threading.Thread(target=carry_out, name="add a model", daemon=True).start()
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            running.cancelled.set()
            await uninterrupted(_ended(result))
            raise


async def _ended(result: "asyncio.Future[T]") -> None:
    await asyncio.wait((result,))
    result.exception()  # it was looked at: nobody else is there to be told of it


def _answered(result: "asyncio.Future[T]", found: T) -> Callable[[], None]:
    return lambda: result.set_result(found)


def _refused(result: "asyncio.Future[T]", error: BaseException) -> Callable[[], None]:
    return lambda: result.set_exception(error)
