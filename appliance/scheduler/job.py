"""Job: one call's sequences on their way through the engine.

Owns the matrix into which results are written and the one wake-up at the end.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

import numpy as np

from appliance.engine.vectors import Matrix
from appliance.sequences.sequence import TokenSequence

Digest = bytes


class ServiceClass(IntEnum):
    """The kinds of calls that share an engine; of two with equal tags the first comes first."""

    SHORT = 0
    """Realtime calls that fit into one batch. They never share a batch with long ones, which would
    make them wait for all of it."""
    LONG = 1
    """Other realtime calls."""
    BATCH = 2
    """Calls of the batch tier."""

    @classmethod
    def of(cls, tokens: int, *, room: int, is_batch: bool) -> "ServiceClass":
        """Return the class of a call with so many tokens, where a batch has room for `room`."""
        if is_batch:
            return cls.BATCH
        return cls.SHORT if tokens <= room else cls.LONG


def digest_of(sequence: TokenSequence) -> Digest:
    """Return 16 bytes that are equal exactly when two sequences give the same rows."""
    content = blake2b(sequence.tokens.data, digest_size=16)
    content.update(sequence.segment_b.to_bytes(4, "little"))
    if sequence.parts:
        content.update(np.array(sequence.parts, np.int32).data)
    return content.digest()


@dataclass(slots=True, eq=False)
class Item:
    """One sequence, computed once for every job that has it."""

    sequence: TokenSequence
    digest: Digest
    waiters: "list[tuple[Job, int]]"
    """Each job that has it, with the row where the result goes to."""

    def __len__(self) -> int:
        """Count tokens."""
        return len(self.sequence)

    @property
    def first_live_waiter(self) -> "Job | None":
        """The first job that still waits for it, or None."""
        return next((job for job, _ in self.waiters if not job.is_over), None)


class Job:
    """The sequences of one call, how many have a result, and the caller that waits for them.

    The loop's thread creates and cancels it; everything else happens under the engine's lock.
    """

    __slots__ = (
        "_future",
        "_loop",
        "cancelled",
        "failed",
        "finished_ns",
        "items",
        "key",
        "left",
        "matrix",
        "queued_ns",
        "service_class",
        "started_ns",
        "tokens_queued",
    )

    def __init__(
        self, count: int, *, width: int, key: str, service_class: ServiceClass, now_ns: int
    ) -> None:
        """Make a job of `count` rows of `width` numbers; keys take turns."""
        self.key = key
        self.service_class = service_class
        self.matrix: Matrix = np.empty((count, width), np.float32)
        self.items: deque[Item] = deque()
        """Those of its items that are in no batch yet, and are queued with this job."""
        self.tokens_queued = 0
        """Of `items`, while it is queued."""
        self.left = count
        """Rows without a result."""
        self.cancelled = False
        self.failed = False
        self.queued_ns = now_ns
        self.started_ns = 0
        """When the first batch with one of its rows began; set when that batch ends, 0 before."""
        self.finished_ns = 0
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"<Job [{len(self.matrix) - self.left}/{len(self.matrix)} sequences]>"

    @property
    def is_over(self) -> bool:
        """Say whether its caller no longer waits for rows."""
        return self.cancelled or self.failed

    async def result(self) -> Matrix:
        """Return the rows in the order of the sequences, float32[n_sequences, width].

        Cancelling the await cancels the job: what is in no batch yet is never computed, unless
        another job shares it.
        """
        try:
            await self._future
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self.matrix

    def drop(self, error: Exception) -> None:
        """Let `result` raise, unless a row was computed already; call on the loop's thread."""
        if not self.started_ns and not self._future.done():
            self.cancelled = True
            self._future.set_exception(error)

    def put(self, index: int, row: Matrix) -> bool:
        """Take one result, float32[width], or those of parts, float32[n_parts, width].

        Return whether it was the last.
        """
        count = 1 if row.ndim == 1 else len(row)
        self.matrix[index : index + count] = row
        self.left -= count
        return self.left == 0

    def finish(self, error: BaseException | None, now_ns: int) -> None:
        """Wake the caller, from any thread; only the first time counts."""
        self.failed = error is not None
        self.finished_ns = now_ns
        with suppress(RuntimeError):  # the loop is closed, and the caller gone with it
            self._loop.call_soon_threadsafe(self._wake, error)

    def _wake(self, error: BaseException | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)
