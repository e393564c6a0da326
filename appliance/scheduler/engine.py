"""Engine: one loaded model and the jobs that it computes.

Owns the lock under which jobs are admitted, batches are handed to workers and results come back,
and the promise that every admitted job ends: with its rows, or with the error that ended it.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from math import inf

from appliance.core.clock import Clock
from appliance.core.errors import (
    ApplianceError,
    EngineDied,
    EngineRestarting,
    InferenceFailed,
    LoadFailed,
    QueueFull,
)
from appliance.engine.backend import EngineLimits
from appliance.engine.crash_marker import CrashMarker
from appliance.engine.loader import LoadedModel
from appliance.scheduler.admission import Admission
from appliance.scheduler.batch_marks import BatchMarks
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.counters import Counters
from appliance.scheduler.job import Item, Job, ServiceClass, digest_of
from appliance.scheduler.queue import WorkQueue
from appliance.scheduler.worker import Batch, Result
from appliance.scheduler.worker_group import WorkerGroup
from appliance.sequences.sequence import TokenSequence, row_starts

log = logging.getLogger("gigarouter.engine")

RESTART_RETRY_S = 2
"""Seconds after which a call that met a dead engine may come back."""

_numbers = count()
"""Every load of weights has its own, so that no cached row outlives a file that was replaced."""


class Engine:
    """Computes jobs; jobs that wait at the same time share the calls of its backends."""

    def __init__(
        self,
        name: str,
        open_model: Callable[[], LoadedModel],
        *,
        clock: Clock,
        queue_tokens_max: int,
        on_death: Callable[[], None],
        cache: VectorCache,
        marker: CrashMarker | None = None,
    ) -> None:
        """Begin to load; `loaded` is done when that has ended. `marker` is told what is computed.

        `on_death` is called on the loop's thread, before the jobs of a dead engine are failed: a
        caller that comes back at once finds the next load begun.
        """
        self.name = name
        self._clock = clock
        self._queue_tokens_max = queue_tokens_max
        self._on_death = on_death
        self._cache = cache
        self._number = next(_numbers)
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._changed = threading.Condition()
        """Guards everything below; notified when there is work, or will be none any more."""
        self._model: LoadedModel | None = None
        self._counters = Counters()
        self._queue = WorkQueue()
        self._admission = Admission(clock)
        self._batches: set[Batch] = set()
        """Those that are being computed."""
        self._marks = BatchMarks(name, marker)
        self._workers_open = 0
        self._closing = False
        self._dead = False
        self._death: BaseException | None = None
        self.worker_group = WorkerGroup(name, open_model, self)
        self.worker_group.start()

    def __repr__(self) -> str:
        """Say what waits."""
        with self._changed:
            state = "dead" if self._dead else "ready" if self._model else "loading"
            waits = f"{len(self._queue)} jobs | {self.tokens_waiting} tokens"
        return f"<Engine {self.name} [{state} | {waits}]>"

    @property
    def number(self) -> int:
        """Return the number of this load; no other engine of the process has it."""
        return self._number

    @property
    def counters(self) -> Counters:
        """Return a copy of what was counted up to now, all of the same moment."""
        with self._changed:
            return replace(self._counters)

    @property
    def tokens_waiting(self) -> int:
        """Return the tokens that wait or are being computed."""
        with self._changed:
            return self._queue.tokens + self._tokens_in_batches

    @property
    def model(self) -> LoadedModel | None:
        """Return the weights and how they are spread over the machine, once they are loaded."""
        return self._model

    @property
    def death(self) -> BaseException | None:
        """Return what ended it, or None while it lives."""
        return self._death

    @property
    def is_usable(self) -> bool:
        """Say whether jobs can be submitted."""
        # Without the lock, which a worker may hold while it chooses a batch: every call reads this
        # several times, and `submit` looks again.
        return self._workers_open > 0 and not self._dead

    @property
    def workers(self) -> tuple[int, int]:
        """Return how many workers have a backend, and how many of them compute now."""
        with self._changed:
            return self._workers_open, self._computing

    @property
    def loaded(self) -> asyncio.Future[None]:
        """Done when the model can compute, or holds the error that it could not be loaded."""
        return self._loaded

    @property
    def _computing(self) -> int:
        return len(self._batches)

    @property
    def _tokens_in_batches(self) -> int:
        return sum(batch.tokens for batch in self._batches)

    def submit(
        self,
        sequences: Sequence[TokenSequence],
        *,
        key: str,
        is_batch: bool = False,
        patience_s: float = inf,
    ) -> Job:
        """Queue sequences in the turn of a key; call on the loop's thread.

        Sequences that are equal, in this job or in others that wait, are computed once.

        Raises:
            QueueFull: the queue has no room for them, or they would not end within `patience_s`.
            EngineRestarting: the engine died, or is being closed.
        """
        assert sequences
        if self._model is None:
            raise EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S)
        tokens = sum(map(len, sequences))
        job = Job(
            row_starts(sequences)[-1],
            width=self._model.weights.facts.width,
            key=key,
            service_class=ServiceClass.of(
                tokens, room=self._model.tuning.max_batch_tokens, is_batch=is_batch
            ),
            now_ns=self._clock.monotonic_ns(),
        )
        with self._changed:
            if self._dead or self._closing:
                raise EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S)
            if self.tokens_waiting + tokens > self._queue_tokens_max:
                backlog_s = round(self.tokens_waiting / self._counters.rate)
                raise QueueFull(retry_after_s=max(1, min(60, backlog_s)))
            self._require_turn(key, job.service_class, tokens, patience_s)
            is_done = self._admit(job, sequences)
        if is_done:
            job.started_ns = job.queued_ns
            job.finish(None, self._clock.monotonic_ns())
        return job

    def expect(
        self, *, key: str, at_least: int, about: int, is_batch: bool, patience_s: float
    ) -> Callable[[], None]:
        """Refuse a call with so many tokens as `submit` would; else count it until that is called.

        Raises:
            QueueFull: it would not end within `patience_s`.
        """
        assert self._model is not None
        room = self._model.tuning.max_batch_tokens
        each = ServiceClass.of(at_least, room=room, is_batch=is_batch)
        with self._changed:
            self._require_turn(key, each, at_least, patience_s)
            return self._queue.expect(key, each, about)

    def _require_turn(self, key: str, of: ServiceClass, tokens: int, patience_s: float) -> None:
        """Refuse what would not end in time, by the speed of the last batches; see `admission`."""
        backlog = self._queue.backlog(key, of, tokens)
        rate, computing = self._counters.rate, self._tokens_in_batches
        self._admission.require(backlog, computing, tokens, rate=rate, patience_s=patience_s)

    def close(self) -> None:
        """Stop after the batches that are being computed, and free the model."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.worker_group.join()

    def _admit(self, job: Job, sequences: Sequence[TokenSequence]) -> bool:
        """Take a job in; return whether all of its rows were known already."""
        self._queue.admit(job)
        try:
            for row, sequence in zip(row_starts(sequences), sequences, strict=False):
                self._find(job, row, sequence)
        except BaseException:
            self._queue.withdraw(job)
            raise
        if not job.left:
            return self._queue.release(job)
        if job.items:
            self._queue.add(job)
            self._changed.notify_all()
        return False

    def _find(self, job: Job, row: int, sequence: TokenSequence) -> None:
        """Take rows from the cache, or let the job wait for the item that will give them."""
        digest = digest_of(sequence)
        cached = self._cache.find(self._number, digest)
        if cached is not None:
            self._counters.cached += 1
            job.put(row, cached)
            return
        item = self._queue.items.get(digest)
        if item is None:
            item = self._queue.items[digest] = Item(sequence, digest, [])
            job.items.append(item)
        else:
            self._counters.shared += 1
        item.waiters.append((job, row))

    # -- on the workers' threads: batches -------------------------------------------------------

    def next_batch(self, limits: EngineLimits, is_retired: Callable[[], bool]) -> Batch | None:
        """Wait for a batch; None: there will be no more, or the worker is retired."""
        with self._changed:
            while True:
                if self._closing or self._dead or is_retired():
                    return None
                assert self._model is not None
                tuning, idle = self._model.tuning, self._workers_open - self._computing
                items = self._queue.take(tuning.capped(limits), idle=idle)
                if items:
                    break
                self._changed.wait()
            more = self._queue.tokens > 0
            alone = not self._batches and not more
            threads = tuning.threads_alone if alone else tuning.threads
            batch = Batch(items, threads, self._clock.monotonic_ns())
            self._batches.add(batch)
            self._marks.begin(batch)
            if more:
                self._changed.notify_all()
        return batch

    def finish_batch(self, done: Batch, results: Sequence[Result]) -> None:
        """Deliver the result of each item of a batch, in order; the worker is idle again."""
        now_ns = self._clock.monotonic_ns()
        ended: dict[Job, InferenceFailed | None] = {}
        with self._changed:
            workers = self._computing
            self._batches.remove(done)
            self._marks.end(done)
            self._counters.add(done, now_ns - done.began_ns, workers=workers)
            for item, result in zip(done.items, results, strict=True):
                if result is None:
                    self._not_computed(item)
                    continue
                self._queue.items.pop(item.digest, None)
                if isinstance(result, InferenceFailed):
                    ended |= dict.fromkeys((job for job, _ in item.waiters), result)
                    continue
                self._cache.keep(self._number, item.digest, result)
                for job, row in item.waiters:
                    job.started_ns = job.started_ns or max(done.began_ns, job.queued_ns)
                    if job.put(row, result):
                        ended.setdefault(job, None)
            # A job that was failed at the death of the engine has ended already.
            ended = {job: error for job, error in ended.items() if self._queue.release(job)}
            for job, error in ended.items():
                if error is not None:
                    job.failed = True
                    self._queue.remove(job)
        # Outside the lock and last: a caller that calls again at once finds the room free.
        for job, error in ended.items():
            job.finish(error, now_ns)

    def abandon_batch(self, batch: Batch) -> None:
        """Take note that a batch will have no results: its worker ends."""
        with self._changed:
            self._batches.remove(batch)
            self._marks.end(batch)

    def _not_computed(self, item: Item) -> None:
        """Queue an item again that a job has come for since, or forget it.

        A dead engine forgets it too: the job is failed with all others.
        """
        next_waiter = item.first_live_waiter
        if next_waiter is not None and not self._dead:
            self._queue.requeue(item, next_waiter)
            self._changed.notify_all()
        else:
            self._queue.drop(item)

    # -- on the workers' threads: their life ----------------------------------------------------

    def model_opened(self, model: LoadedModel) -> None:
        """Take the weights before any worker has a backend; or their new tuning, later."""
        with self._changed:
            self._counters.room = model.tuning.max_batch_tokens
            self._model = model
            self._changed.notify_all()
        if model.notify is not None:
            model.notify(self.model_lost)

    def model_lost(self, error: EngineDied) -> None:
        """Take note, on any thread, that nothing more can be computed; no worker may know yet."""
        with self._changed:
            is_serving = self._workers_open > 0 and not self._closing
        if is_serving:  # else whoever opens or closes the backends meets the error
            self._die(error)

    def worker_opened(self) -> None:
        """Take note that one more worker can compute."""
        with self._changed:
            self._workers_open += 1

    def model_loaded(self) -> None:
        """Take note that the first worker can compute and the others have been started."""
        self._tell(self._loaded.set_result, None)

    def load_failed(self, error: BaseException) -> None:
        """Take the reason why no worker will ever compute."""
        with self._changed:
            self._dead = True
        if not isinstance(error, ApplianceError):
            log.error("%s could not be loaded", self.name, exc_info=error)
            error = LoadFailed(repr(error))
        self._tell(self._loaded.set_exception, error)

    def worker_closed(self, error: BaseException | None) -> None:
        """Take note that one worker less can compute, and of the error that ended it."""
        with self._changed:
            self._workers_open -= 1
        if error is not None:
            self._die(error)

    def _die(self, error: BaseException) -> None:
        """Fail every job, and have the model loaded again; only the first time counts."""
        with self._changed:
            if self._dead:
                return
            self._dead, self._death = True, error
            self._changed.notify_all()
            is_closing = self._closing
        traceback = None if isinstance(error, EngineDied) else error
        log.error("engine of %s died: %s", self.name, error, exc_info=traceback)
        if not is_closing:
            # First of all: a caller that learns of the death and calls again finds the next load.
            self._tell(self._on_death)
        self._fail_all()

    def all_ended(self) -> None:
        """Take note that no worker is left; the weights are freed next."""
        self._fail_all()

    def _fail_all(self) -> None:
        """Fail every job that was admitted and has not ended; none is admitted any more."""
        with self._changed:
            self._dead = True
            owed = self._queue.clear()
        now_ns = self._clock.monotonic_ns()
        for job in owed:
            job.finish(EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S), now_ns)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        """Call a function on the loop's thread, unless the loop is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *arguments)
