"""BatchRun: one batch, from its validation to its end.

Owns its state while it runs. A run may end at any moment, with the process or by a drain, and the
next one goes on: what stands in the result files is answered, what the books know as charged and
not written is computed again for nothing, and everything else has not happened.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

import msgspec

from appliance.batches.line_call import LineCall, expired
from appliance.batches.lines import Line, check, unanswered_lines
from appliance.batches.result_files import ResultFiles, found, stored
from appliance.batches.result_writer import RETRY_S, ResultWriter
from appliance.batches.work import LOOK_S, Work, pause
from appliance.core.cancellation import uninterrupted
from appliance.core.clock import MICROSECONDS_PER_DAY
from appliance.core.errors import ApplianceError, InvalidKey, KeyNotFound, StoreFailed
from appliance.core.failpoint import reach
from appliance.ledger import batches, files
from appliance.ledger.batches import Batch, BatchError, Status
from appliance.ledger.entry import Charge
from appliance.store.regular_file import open_private

log = logging.getLogger("gigarouter.batches")

PACE_S = 0.01
"""Between the beginnings of two lines while realtime calls come."""
BEHIND_MAX = 4
"""So often a line waits for that while a realtime call is being answered: batches go on, too."""
SETTLE_S = 60.0
"""So long a batch that is over waits for a disk that takes nothing."""
NOT_LIVE = BatchError("invalid_api_key", "the key of this batch was revoked or has expired")
INPUT_GONE = BatchError("input_file_missing", "the input file cannot be read", "input_file_id")
OUR_FAULT = BatchError("server_error", "unexpected error; the server's log says more")
RESULTS_GONE = BatchError("results_missing", "results that were written cannot be read any more")


class Ended(Exception):
    """The batch cannot go on; its last error says why."""

    def __init__(self, error: BatchError, cause: Exception | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.cause = cause
        """What the operator is told beside it."""


class BatchRun:
    """Computes one batch."""

    def __init__(self, work: Work, batch: Batch, share: Callable[[], int]) -> None:
        """`share` says how many lines it may have in flight now."""
        self.batch = batch
        self._work = work
        self._share = share
        self._lines: set[asyncio.Task[None]] = set()
        self._unwritten = 0
        """Lines in flight, those among them that are computed and not written yet."""
        self._changed = asyncio.Event()
        self._owed: dict[int, Charge] = {}
        self._fault: BatchError | None = None
        self._saving: dict[str, Any] = {}
        """What is on its way into the books, and not true before it is there."""
        self._is_ending = False
        self._in_flight_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._is_cut = False
        """Lines were not computed in time."""

    def __repr__(self) -> str:
        """Say how far it is."""
        done = self.batch.completed + self.batch.failed
        return f"<BatchRun {self.batch.id} [{self.batch.status} | {done} of {self.batch.total}]>"

    async def run(self) -> None:
        """Go on until the batch has ended, or the server stops."""
        try:
            if self._is_cancelled and self.batch.in_progress_us is None:
                await self._end("cancelled")
            elif self.batch.status != "validating" or await self._is_valid():
                await self._compute()
        except Ended as ended:
            log.warning("%s failed: %s (%s)", self.batch.id, ended, ended.cause or "by its key")
            await self._end("failed", [ended.error])

    async def give_up(self) -> None:
        """End a batch that we cannot compute, for no fault of its own."""
        await self._end("failed", [OUR_FAULT])

    async def cancel(self) -> Batch:
        """Take no further lines; return the batch as it is now.

        Raises:
            StorageFull, LedgerUnavailable: the books cannot say so now.
        """
        if self.batch.status in ("validating", "in_progress") and not self._is_ending:
            await self._save(status="cancelling", cancelling_us=self._now_us())
            self._changed.set()
        return self.batch

    # -- its state --------------------------------------------------------------------------------

    def _now_us(self) -> int:
        return self._work.clock.wall_us()

    async def _save(self, **changes: Any) -> None:
        batch = msgspec.structs.replace(self.batch, **changes)
        self._saving = changes
        try:
            await self._work.writer.run(lambda connection: batches.save(connection, batch))
            self.batch = msgspec.structs.replace(self.batch, **changes)
        finally:
            self._saving = {}

    @property
    def _is_stopping(self) -> bool:
        return self._work.pipeline.draining

    @property
    def _is_cancelled(self) -> bool:
        return self.batch.status == "cancelling"

    @property
    def _is_expired(self) -> bool:
        return self._now_us() >= self.batch.expires_us

    @property
    def _is_over(self) -> bool:
        """Whether nothing is computed any more that is not charged for."""
        return self._is_cancelled or self._is_expired or self._fault is not None

    @property
    def _is_short(self) -> bool:
        """Whether lines have no result."""
        return self.batch.completed + self.batch.failed < self.batch.total

    def _require_live(self) -> None:
        try:
            key = self._work.keyring.get(self.batch.key_id)
            self._work.keyring.require_live(key, self._now_us())
        except (InvalidKey, KeyNotFound):
            raise Ended(NOT_LIVE) from None

    def _open_input(self) -> BinaryIO:
        try:
            path = self._work.folder / self.batch.input_file
            return os.fdopen(open_private(path, os.O_RDONLY), "rb")
        except OSError as error:
            raise Ended(INPUT_GONE, error) from None

    # -- validating -------------------------------------------------------------------------------

    async def _is_valid(self) -> bool:
        """Look at every line; return whether there is something to compute."""
        self._require_live()
        batch, limits = self.batch, self._work.limits

        def is_over() -> bool:
            return self._is_cancelled or self._is_stopping

        with self._open_input() as file:
            async with self._work.checking:
                checked = await asyncio.to_thread(check, file, batch.endpoint, limits, is_over)
        if self._is_stopping:
            return False
        if self._is_cancelled:
            await self._end("cancelled")
            return False
        if checked.errors:
            await self._end("failed", checked.errors)
            return False
        await self._save(status="in_progress", total=checked.total, in_progress_us=self._now_us())
        return True

    # -- computing --------------------------------------------------------------------------------

    async def _compute(self) -> None:
        batch = self.batch
        self._owed = await self._work.writer.run(
            lambda connection: batches.owed(connection, batch.id), durable=False
        )
        try:
            opened = await asyncio.to_thread(
                ResultFiles.open, self._work.folder, batch, self._work.limits.batch_lines_max
            )
        except (StoreFailed, OSError) as error:
            raise Ended(RESULTS_GONE, error) from None
        output, errors, done = opened.output, opened.errors, opened.done
        self.batch = msgspec.structs.replace(
            self.batch,
            completed=opened.counts[0],
            failed=opened.counts[1],
            output_bytes=output.size,
            error_bytes=errors.size,
        )
        writer = ResultWriter(self._work, output, errors, self._progress, self._written(done))
        writing = self._writing = asyncio.create_task(writer.run(self._note_written))
        try:
            with self._open_input() as file:
                await self._take_lines(file, done, writer)
            await self._settle_down(writer)
            await self._begin_to_end()
        finally:
            await uninterrupted(self._stop(writing, writer, opened))
        if self._fault is not None:
            raise Ended(self._fault)
        if not self._is_stopping:
            is_cut = self._is_cut or (self._is_expired and self._is_short)
            over: Status = "expired" if is_cut else "completed"
            await self._end("cancelled" if self._is_cancelled else over)

    def _written(self, done: bytearray) -> list[int]:
        """Return the charges whose answers were found in the file: they are owed no more."""
        found = [line for line in self._owed if done[line] == 1]
        return [self._owed.pop(line).seq for line in found]

    def _progress(self, completed: int, failed: int, output: int, errors: int) -> Batch:
        self.batch = msgspec.structs.replace(
            self.batch,
            completed=self.batch.completed + completed,
            failed=self.batch.failed + failed,
            output_bytes=output,
            error_bytes=errors,
        )
        return msgspec.structs.replace(self.batch, **self._saving)

    def _note_written(self, count: int) -> None:
        self._unwritten -= count
        self._changed.set()

    async def _take_lines(self, file: BinaryIO, done: bytearray, writer: ResultWriter) -> None:
        lines = unanswered_lines(file, self.batch.endpoint, self._work.limits, done)
        while some := await asyncio.to_thread(next, lines, None):
            for line in some:
                is_given_up = self._is_over and line.number not in self._owed
                await (self._backlog(writer) if is_given_up else self._room(line, writer))
                if self._is_stopping or self._is_late(writer):
                    return
                if self._is_over and line.number not in self._owed:
                    if self._fault is None and not self._is_cancelled:
                        self._unwritten += 1
                        self._give_up(line, writer)
                    elif not self._owed:
                        return
                    continue
                self._begin(line, writer)

    def _is_late(self, writer: ResultWriter) -> bool:
        """Say whether it is over, and its last results cannot be written."""
        return self._is_over and writer.failing_s > SETTLE_S

    async def _backlog(self, writer: ResultWriter) -> None:
        """Return when another line may be given up, which takes nothing but writing."""
        most = self._work.limits.batch_lines_in_flight_max
        while self._unwritten >= most and not self._is_stopping and not self._is_late(writer):
            await self._wait_for_change()

    async def _room(self, line: Line, writer: ResultWriter) -> None:
        """Return when a line may begin: one that is large alone, others a few at a time."""
        pipeline = self._work.pipeline
        # Calls come between: each line takes a millisecond of the loop, and its turn of the engine.
        await asyncio.sleep(PACE_S if pipeline.is_realtime_about else 0)
        for _ in range(BEHIND_MAX):
            if not pipeline.realtime_in_flight:
                break
            await asyncio.sleep(PACE_S)
        limits = self._work.limits
        most = limits.batch_held_bytes_max // limits.batches_running_max
        while not (self._is_stopping or self._is_late(writer)) and (
            self._unwritten >= self._share()
            or (self._in_flight_bytes and self._in_flight_bytes + len(line.body) > most)
        ):
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        if self._writing is not None and self._writing.done():
            self._writing.result()  # nothing is written any more, and this says why
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._changed.wait()

    def _begin(self, line: Line, writer: ResultWriter) -> None:
        self._unwritten += 1
        size = len(line.body)
        self._in_flight_bytes += size
        task = asyncio.create_task(self._serve(line, writer))
        self._lines.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._lines.discard(task)
            self._in_flight_bytes -= size
            self._changed.set()

        task.add_done_callback(ended)

    async def _serve(self, line: Line, writer: ResultWriter) -> None:
        charge = self._owed.get(line.number)

        def is_over() -> bool:
            return self._is_stopping or (self._is_over and charge is None)

        result = None
        try:
            result = await LineCall(self._work, self.batch, line, charge, is_over).result()
        except InvalidKey:
            self._fault = self._fault or NOT_LIVE
        is_ending = self._is_stopping or self._is_cancelled or self._fault is not None
        if result is not None:
            if not result.is_error:
                self._owed.pop(line.number, None)
            writer.add(result)
        elif self._is_expired and not is_ending:
            self._give_up(line, writer)
        else:
            self._note_written(1)

    def _give_up(self, line: Line, writer: ResultWriter) -> None:
        """Write that a line was not computed in time."""
        self._is_cut = True
        writer.add(expired(self.batch, line))

    async def _settle_down(self, writer: ResultWriter) -> None:
        """Return when no line is in flight and all answers are written, or the server stops.

        A batch that is over does not wait longer than `SETTLE_S` for a disk that takes nothing:
        what was charged for an answer that is not written is given back.
        """
        while self._lines or not (writer.is_idle or self._is_stopping):
            if self._is_late(writer):
                return
            await self._wait_for_change()

    async def _stop(
        self,
        writing: "asyncio.Task[None]",
        writer: ResultWriter,
        opened: ResultFiles,
    ) -> None:
        """End what is left of the run, so that nothing of it works on."""
        for task in self._lines:
            task.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await writer.flush()
        await asyncio.to_thread(opened.close)

    async def _begin_to_end(self) -> None:
        """Say that the files are being closed; books that cannot be told now are told the end."""
        if self.batch.status != "in_progress" or self._is_stopping or self._fault is not None:
            return
        self._is_ending = True  # a cancel comes too late
        try:
            await self._save(status="finalizing", finalizing_us=self._now_us())
        except ApplianceError as error:
            log.warning("%s is being ended, which is not in the books: %s", self.batch.id, error)

    # -- its end ----------------------------------------------------------------------------------

    async def _end(self, status: Status, wrong: list[BatchError] | None = None) -> None:
        """Write that the batch has ended, and give back what was charged without an answer."""
        reach("before_end")
        self._is_ending = True
        now_us = self._now_us()
        expires_us = now_us + self._work.limits.file_days * MICROSECONDS_PER_DAY
        changes: dict[str, Any] = {"status": status, f"{status}_us": now_us, "errors": wrong or []}
        if self.batch.in_progress_us is not None and self.batch.finalizing_us is None:
            changes["finalizing_us"] = now_us
        batch = msgspec.structs.replace(self.batch, **changes)
        batch = await asyncio.to_thread(found, self._work.folder, batch)
        made = list(stored(batch, now_us, expires_us))

        while not self._is_stopping:
            try:
                await self._work.writer.run(
                    lambda connection: files.end_batch(connection, batch, made, now_us)
                )
            except ApplianceError as error:
                log.warning("the end of %s is not in the books yet: %s", batch.id, error)
                await pause(RETRY_S, lambda: self._is_stopping)
            else:
                self.batch = batch
                return
