"""ResultWriter: answers of one batch on their way to its files, many at a time.

Owns the order: first the answers are on the disk, then the books say so and their charges stay. A
crash in between leaves lines that are in the files and not in the books, which are found there.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from appliance.accounts.held_bytes import CallBytes
from appliance.batches.results import ResultFile
from appliance.batches.work import Work
from appliance.core.cancellation import uninterrupted
from appliance.core.errors import ApplianceError
from appliance.core.failpoint import reach
from appliance.ledger import batches
from appliance.ledger.batches import Batch

log = logging.getLogger("gigarouter.batches")

GATHER_S = 0.02
"""How long answers are collected before they are written: a flush of the disk for many of them."""
RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Result:
    """One line of one of the two files."""

    content: bytes
    is_error: bool
    seq: int | None
    """Of its charge; None: nothing was charged."""
    held: CallBytes | None


class ResultWriter:
    """Writes the results of one batch; for the event loop's thread only."""

    def __init__(
        self,
        work: Work,
        output: ResultFile,
        errors: ResultFile,
        progress: Callable[[int, int, int, int], Batch],
        unmarked: list[int],
    ) -> None:
        """`progress` takes lines completed and failed and both files' bytes, and gives the row.

        `unmarked` are charges whose answers are on the disk, which the books do not know yet.
        """
        self._work = work
        self._output, self._errors = output, errors
        self._progress = progress
        self._results: list[Result] = []
        self._unmarked = unmarked
        self._waiting = asyncio.Event()
        self._has_failed = False
        self._failing_since: float | None = None

    def __repr__(self) -> str:
        """Show how many are not written yet."""
        return f"<ResultWriter [{len(self._results)} waiting]>"

    @property
    def is_idle(self) -> bool:
        """Say whether everything is on the disk and in the books."""
        return not self._results and not self._unmarked

    @property
    def failing_s(self) -> float:
        """Return for how many seconds nothing could be written; 0 after what could be."""
        since = self._failing_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def add(self, result: Result) -> None:
        """Write a result soon."""
        self._results.append(result)
        self._waiting.set()

    async def run(self, on_written: Callable[[int], None]) -> None:
        """Write what comes until cancelled; `on_written` is told how many results were written."""
        while True:
            await self._waiting.wait()
            await asyncio.sleep(GATHER_S)
            self._waiting.clear()
            on_written(await uninterrupted(self.flush()))
            if not self._has_failed:
                self._failing_since = None
            else:
                if self._failing_since is None:
                    self._failing_since = asyncio.get_running_loop().time()
                await asyncio.sleep(RETRY_S)
                self._waiting.set()

    async def flush(self) -> int:
        """Write all that waits; return how many results are on the disk now that were not.

        What cannot be written now is kept for the next time, and said in the log.
        """
        self._has_failed = False
        if self.is_idle:
            return 0
        results, self._results = self._results, []
        good = [each for each in results if not each.is_error]
        bad = [each for each in results if each.is_error]
        written = 0
        for file, some in ((self._output, good), (self._errors, bad)):
            if some and await self._append(file, some):
                written += len(some)
        try:
            await self._mark()
        except ApplianceError as error:
            self._has_failed = True
            log.warning("answers of a batch are not in the books yet: %s", error)
        return written

    async def _append(self, file: ResultFile, results: list[Result]) -> bool:
        lines = [each.content for each in results]
        free_min = self._work.limits.files_free_bytes_min
        reach("before_results")
        try:
            await asyncio.to_thread(file.append, lines, free_min=free_min)
        except (ApplianceError, OSError) as error:
            log.warning("answers of a batch are not written yet: %s", error)
            self._has_failed = True
            self._results = results + self._results
            return False
        reach("after_results")
        self._unmarked += [each.seq for each in results if each.seq is not None]
        count = len(results)
        completed, failed = (count, 0) if file is self._output else (0, count)
        self._progress(completed, failed, self._output.size, self._errors.size)
        for each in results:
            if each.held is not None:
                each.held.release()
        return True

    async def _mark(self) -> None:
        """Tell the books what is on the disk."""
        seqs = list(self._unmarked)
        batch = self._progress(0, 0, self._output.size, self._errors.size)
        await self._work.writer.run(
            lambda connection: batches.written(connection, batch, seqs), durable=False
        )
        self._unmarked = self._unmarked[len(seqs) :]
