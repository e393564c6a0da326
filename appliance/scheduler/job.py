"""Job: one call's sequences on their way through the engine.

Owns the matrix into which results are written and the one wake-up at the end. Deliberately knows
neither keys nor money.
"""

import asyncio
from collections.abc import Sequence

import numpy as np

from appliance.engine.vectors import Matrix
from appliance.tasks.sequence import TokenSequence


class Job:
    """Sequences, how far they are, and who waits for them.

    The loop's thread creates and cancels; the lane's thread does the rest.
    """

    __slots__ = (
        "_future", "_loop", "cancelled", "finished_ns", "left", "matrix", "next", "queued_ns",
        "sequences", "started_ns", "tokens",
    )  # fmt: skip

    def __init__(self, sequences: Sequence[TokenSequence], *, width: int, now_ns: int) -> None:
        self.sequences = sequences
        self.tokens = sum(map(len, sequences))
        self.matrix: Matrix = np.empty((len(sequences), width), np.float32)
        self.next = 0
        """Index of the first sequence that is in no bin yet."""
        self.left = len(sequences)
        """Sequences without a result."""
        self.cancelled = False
        self.queued_ns = now_ns
        self.started_ns = 0
        """When its first bin began; 0: not yet."""
        self.finished_ns = 0
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"<Job [{len(self.sequences) - self.left}/{len(self.sequences)} sequences]>"

    async def result(self) -> Matrix:
        """Return the rows in the order of the sequences, float32[n_sequences, width].

        Cancelling the await cancels the job: what is in no bin yet is never computed.
        """
        try:
            await self._future
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self.matrix

    def finish(self, error: BaseException | None, now_ns: int) -> None:
        """Wake the caller, from the lane's thread; only the first time counts."""
        self.finished_ns = now_ns
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, error)

    def _wake(self, error: BaseException | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)
