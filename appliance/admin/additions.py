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

from appliance.catalog.addition import Stage
from appliance.core import ids
from appliance.core.cancellation import uninterrupted
from appliance.core.errors import InvalidRequest, LoadFailed
from appliance.wire.additions import AdditionList, AdditionView

T = TypeVar("T")

RUNNING_MAX = 3
"""Models that are added at once."""


class AdditionCancelled(LoadFailed):
    """Adding a model was cancelled by somebody else; the models are what they were."""

    def __init__(self, model: str) -> None:
        super().__init__(f"adding {model[:200]!r} was cancelled; nothing is changed")


@dataclass(slots=True)
class Running:
    """One addition; its thread writes the fields, and any thread may read them."""

    model: str
    """The id that the model will have."""
    source: str
    id: str = field(default_factory=ids.addition_id)
    now: tuple[Stage | None, int, int] = (None, 0, 0)
    """The stage, the bytes of it that are done, and all there are; replaced as a whole."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def progress(self, stage: Stage, done: int, total: int) -> None:
        """Note what it does now.

        Raises:
            AdditionCancelled: it is to end.
        """
        self.now = stage, done, total
        self.require_wanted()

    def require_wanted(self) -> None:
        """Go on.

        Raises:
            AdditionCancelled: it is to end.
        """
        if self.cancelled.is_set():
            raise AdditionCancelled(self.model)

    def view(self) -> AdditionView:
        """Return what the operator's API says of it."""
        stage, done, total = self.now
        return AdditionView(self.id, self.model, self.source, stage or "", done, total)


class Additions:
    """All additions of one process that have not ended."""

    def __init__(self) -> None:
        self._running: list[Running] = []

    def __repr__(self) -> str:
        """Count what runs."""
        return f"<Additions [{len(self._running)} running]>"

    async def all(self) -> AdditionList:
        """Return those that run, oldest first."""
        return AdditionList([running.view() for running in list(self._running)])

    async def cancel(self, addition_id: str) -> AdditionView:
        """Tell an addition to end at its next step; one that is putting its file in place does not.

        Raises:
            InvalidRequest: none that runs has this id.
        """
        running = next((each for each in list(self._running) if each.id == addition_id), None)
        if running is None:
            raise InvalidRequest(
                f"no model is being added as {addition_id[:100]!r}; it may have ended", param="id"
            )
        running.cancelled.set()
        return running.view()

    async def run(
        self, model: str, source: str, work: Callable[[Running], T], *, param: str = "path"
    ) -> T:
        """Return the result of `work`, which runs on a thread of its own.

        When the caller is cancelled, `work` is told at its next step, and has ended when the
        cancellation goes on.

        Raises:
            InvalidRequest: too many run; its `param` is as given.
            AdditionCancelled: somebody else cancelled it.
        """
        if len(self._running) >= RUNNING_MAX:
            raise InvalidRequest(
                f"{RUNNING_MAX} models are being added already; wait until one is done",
                param=param,
            )
        running, loop = Running(model, source), asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def carry_out() -> None:
            try:
                found = work(running)
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
