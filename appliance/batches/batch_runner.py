"""BatchRunner: every batch that has not ended, some of them at a time.

Owns which batches run and how many lines each may have in flight: keys share these equally, and so
do the batches of a key. Realtime calls come before all of them, in the scheduler's order.
"""

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from appliance.batches.batch_run import BatchRun
from appliance.batches.work import Work
from appliance.core.errors import ApplianceError
from appliance.ledger import batches
from appliance.ledger.batches import Batch

log = logging.getLogger("gigarouter.batches")

LOOK_S = 1.0
RETRY_S = 15.0
"""After a run that ended by an error."""
FAULTS_MAX = 3
"""Runs of a batch that may end by an error of ours."""


class BatchRunner:
    """Runs batches until the server stops."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: dict[str, Batch] = {}
        self._runs: dict[str, BatchRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keys: Counter[str] = Counter()
        """How many batches of each key run."""
        self._changed = asyncio.Event()
        self._faults: Counter[str] = Counter()
        """Errors of ours that ended runs of a batch."""
        self._loaded = asyncio.Event()
        self._later: dict[str, float] = {}
        """Those that wait after an error, and the loop's time when that is over."""

    def __repr__(self) -> str:
        """Say how many run and wait."""
        return f"<BatchRunner [{len(self._runs)} run | {len(self._waiting)} wait]>"

    def add(self, batch: Batch) -> None:
        """Run a batch as soon as there is a place for it."""
        self._waiting[batch.id] = batch
        self._changed.set()

    async def cancel(self, batch: Batch) -> Batch:
        """Cancel a batch; return it as it is now. One that has ended stays as it is.

        Raises:
            StorageFull, LedgerUnavailable: the books cannot say so now.
        """
        await self._loaded.wait()
        run = self._runs.get(batch.id)
        if run is None and batch.id in self._waiting:
            # It gets its turn at once: there may be results to hand over.
            run = self._start(self._waiting.pop(batch.id))
        return batch if run is None else await run.cancel()

    def progress(self, batch: Batch) -> Batch:
        """Return a batch as it is now: the books may be some answers behind."""
        run = self._runs.get(batch.id)
        return batch if run is None else run.batch

    async def run(self) -> None:
        """Run until cancelled; then end what runs, so that the next start can go on."""
        try:
            await self._load()
            while True:
                self._fill()
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._changed.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _load(self) -> None:
        while True:
            try:
                found = await self._work.writer.run(batches.unfinished, durable=False)
            except ApplianceError as error:
                log.warning("batches do not go on yet: %s", error)
                await asyncio.sleep(LOOK_S)
            else:
                # What was added meanwhile is newer than what was found.
                added = self._waiting
                self._waiting = {each.id: each for each in found if each.id not in self._runs}
                self._waiting |= added
                self._loaded.set()
                return

    def _fill(self) -> None:
        """Start batches while there are places: of the key that has fewest, the oldest first."""
        limits = self._work.limits
        now = asyncio.get_running_loop().time()
        while len(self._runs) < limits.batches_running_max and not self._work.pipeline.draining:
            ready = [
                batch
                for batch in self._waiting.values()
                if self._keys[batch.key_id] < limits.batches_running_per_key_max
                and self._later.get(batch.id, 0.0) <= now
            ]
            if not ready:
                return
            chosen = min(ready, key=lambda batch: (self._keys[batch.key_id], batch.created_us))
            self._start(self._waiting.pop(chosen.id))

    def _start(self, batch: Batch) -> BatchRun:
        run = self._runs[batch.id] = BatchRun(self._work, batch, lambda: self._share(batch.key_id))
        self._keys[batch.key_id] += 1
        self._later.pop(batch.id, None)
        task = asyncio.create_task(self._serve(run), name=batch.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def _serve(self, run: BatchRun) -> None:
        try:
            await run.run()
        except ApplianceError as error:
            log.warning("%s stopped, and goes on later: %s", run.batch.id, error)
        except Exception:
            log.exception("%s stopped by an error of ours", run.batch.id)
            self._faults[run.batch.id] += 1
            if self._faults[run.batch.id] >= FAULTS_MAX:
                try:
                    await run.give_up()
                except Exception:
                    log.exception("%s cannot be ended either", run.batch.id)
        finally:
            batch = run.batch
            del self._runs[batch.id]
            self._keys[batch.key_id] -= 1
            if not self._keys[batch.key_id]:
                del self._keys[batch.key_id]
            if batch.is_open and not self._work.pipeline.draining:
                self._later[batch.id] = asyncio.get_running_loop().time() + RETRY_S
                self._waiting[batch.id] = batch
            else:
                self._faults.pop(batch.id, None)
            self._changed.set()

    def _share(self, key_id: str) -> int:
        """Return how many lines a batch of a key may have in flight."""
        limits, is_beside = self._work.limits, self._work.pipeline.is_realtime_about
        most = limits.batch_lines_in_flight_max
        if is_beside:
            most = limits.batch_lines_beside_realtime_max
        of_key = most // max(1, len(self._keys))
        concurrency = self._work.keyring.get(key_id).limits.concurrency
        if concurrency is not None:
            of_key = min(of_key, max(1, concurrency // 2))  # the key's own calls go on beside
        return max(1, of_key // max(1, self._keys[key_id]))
