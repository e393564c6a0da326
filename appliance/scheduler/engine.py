"""Engine: one loaded model, its queue and its workers.

Owns the lock under which work is handed out and results come back, the life of the weights, and
the end of everything that is owed when a worker dies.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from appliance.core.clock import Clock
from appliance.core.errors import (
    ApplianceError,
    EngineDied,
    EngineRestarting,
    InferenceFailed,
    LoadFailed,
    QueueFull,
)
from appliance.engine.backend import Backend, EngineLimits
from appliance.engine.loader import LoadedModel
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.counters import Counters
from appliance.scheduler.job import Item, Job, ServiceClass, digest_of
from appliance.scheduler.queue import WorkQueue
from appliance.scheduler.worker import Batch, Result, Worker
from appliance.sequences.sequence import TokenSequence

log = logging.getLogger("gigarouter.engine")

RESTART_RETRY_S = 2

_numbers = count()
"""Every load of weights has its own, so that no cached row outlives a file that was replaced."""


class Engine:
    """Computes jobs, sharing each call of its backends between all that wait."""

    def __init__(
        self,
        name: str,
        open_model: Callable[[], LoadedModel],
        *,
        clock: Clock,
        queue_tokens_max: int,
        on_death: Callable[[], None],
        cache: VectorCache,
    ) -> None:
        """Begin to load; `loaded` tells the end."""
        self.name = name
        self.counters = Counters()
        self._open_model = open_model
        self._clock = clock
        self._queue_tokens_max = queue_tokens_max
        self._on_death = on_death
        self._cache = cache
        self._number = next(_numbers)
        self._model: LoadedModel | None = None
        self._changed = threading.Condition()
        self._queue = WorkQueue()
        self._tokens_in_batches = 0
        self._computing = 0
        self._workers_open = 0
        self._workers_alive = 1
        self._closing = False
        self._dead = False
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._workers: list[Worker] = []
        self._workers.append(Worker(f"{name}/0", self, self._load))

    def __repr__(self) -> str:
        """Say what waits."""
        state = "dead" if self._dead else "ready" if self._model else "loading"
        waits = f"{len(self._queue)} jobs | {self.tokens_waiting} tokens"
        return f"<Engine {self.name} [{state} | {waits}]>"

    @property
    def tokens_waiting(self) -> int:
        """Return the tokens that wait or are being computed."""
        return self._queue.tokens + self._tokens_in_batches

    @property
    def model(self) -> LoadedModel | None:
        """Return the weights and how they are spread over the machine, once they are loaded."""
        return self._model

    @property
    def is_usable(self) -> bool:
        """Say whether jobs can be submitted."""
        return self._workers_open > 0 and not self._dead

    @property
    def workers(self) -> tuple[int, int]:
        """Return how many contexts there are, and how many compute now."""
        return self._workers_open, self._computing

    @property
    def loaded(self) -> asyncio.Future[None]:
        """Done when the model can compute, or holds the error that it could not be loaded."""
        return self._loaded

    def submit(
        self, sequences: Sequence[TokenSequence], *, key: str, is_batch: bool = False
    ) -> Job:
        """Queue sequences in the turn of a key; call on the loop's thread.

        Sequences that are equal, in this job or in others that wait, are computed once.

        Raises:
            QueueFull: the queue has no room for them.
            EngineRestarting: the engine died.
        """
        assert sequences
        if self._model is None:
            raise EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S)
        tokens = sum(map(len, sequences))
        is_short = tokens <= self._model.tuning.max_batch_tokens
        job = Job(
            len(sequences),
            width=self._model.weights.facts.width,
            key=key,
            service_class=ServiceClass.BATCH
            if is_batch
            else ServiceClass.SHORT
            if is_short
            else ServiceClass.LONG,
            now_ns=self._clock.monotonic_ns(),
        )
        with self._changed:
            if self._dead or self._closing:
                raise EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S)
            if self.tokens_waiting + tokens > self._queue_tokens_max:
                raise QueueFull(retry_after_s=self._backlog_s())
            self._admit(job, sequences)
            if job.items:
                self._queue.add(job)
                self._changed.notify_all()
        if not job.left:
            job.started_ns = job.queued_ns
            job.finish(None, self._clock.monotonic_ns())
        return job

    def close(self) -> None:
        """Stop after the batches that are being computed, and free the model."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _admit(self, job: Job, sequences: Sequence[TokenSequence]) -> None:
        for row, sequence in enumerate(sequences):
            digest = digest_of(sequence)
            cached = self._cache.find(self._number, digest)
            if cached is not None:
                self.counters.cached += 1
                job.put(row, cached)
                continue
            item = self._queue.items.get(digest)
            if item is None:
                item = self._queue.items[digest] = Item(sequence, digest, [])
                job.items.append(item)
            else:
                self.counters.shared += 1
            item.waiters.append((job, row))

    def _backlog_s(self) -> int:
        return max(1, min(60, round(self.tokens_waiting / self.counters.rate)))

    # -- on the workers' threads ----------------------------------------------------------------

    def next_batch(self, limits: EngineLimits) -> Batch | None:
        """Wait for work; None: there will be no more."""
        assert self._model is not None
        tuning = self._model.tuning
        with self._changed:
            while True:
                if self._closing or self._dead:
                    return None
                idle = self._workers_open - self._computing
                items = self._queue.take(limits, idle=idle)
                if items:
                    break
                self._changed.wait()
            self._computing += 1
            more = self._queue.tokens > 0
            alone = self._computing == 1 and not more
            threads = tuning.threads_alone if alone else tuning.threads
            work = Batch(items, threads, self._clock.monotonic_ns())
            self._tokens_in_batches += work.tokens
            if more:
                self._changed.notify_all()
        return work

    def finish_batch(self, done: Batch, results: Sequence[Result]) -> None:
        """Hand over what became of each item of a batch, in order; the worker is idle again."""
        now_ns = self._clock.monotonic_ns()
        ended: dict[Job, InferenceFailed | None] = {}
        with self._changed:
            self._computing -= 1
            self._tokens_in_batches -= done.tokens
            self.counters.add(done, now_ns - done.began_ns, workers=self._computing + 1)
            for item, result in zip(done.items, results, strict=True):
                next_waiter = item.first_live_waiter
                if result is None and next_waiter is not None and not self._dead:
                    # Nobody wanted it when the batch was tried again; somebody came since.
                    self._queue.requeue(item, next_waiter)
                    self._changed.notify_all()
                    continue
                self._queue.items.pop(item.digest, None)
                if isinstance(result, InferenceFailed):
                    ended |= dict.fromkeys((job for job, _ in item.waiters), result)
                elif result is not None:
                    self._cache.keep(self._number, item.digest, result)
                    for job, row in item.waiters:
                        job.started_ns = job.started_ns or max(done.began_ns, job.queued_ns)
                        if job.put(row, result):
                            ended.setdefault(job, None)
            for job, error in ended.items():
                if error is not None:
                    job.failed = True
                    self._queue.remove(job)
        # Last: whoever hears of the result and calls again finds the room.
        for job, error in ended.items():
            job.finish(error, now_ns)

    def worker_ended(self, error: BaseException | None, *, opened: bool) -> None:
        """Say that a worker is gone: because of an error, or before it had a backend."""
        if not opened:
            self._not_opened(error)
        elif error is not None:
            self._die(error)
        with self._changed:
            self._workers_open -= opened
            self._workers_alive -= 1
            is_last = not self._workers_alive
        if is_last:
            self._fail_owed()
            if self._model is not None:
                self._model.weights.close()

    def _load(self) -> Backend:
        """Load the model on the first worker's thread, and start the others."""
        model = self._open_model()
        self._model = model
        self.counters.room = model.tuning.max_batch_tokens
        backend = self._open_backend(0)
        self._workers_alive = max(1, model.tuning.workers)
        for worker in range(1, model.tuning.workers):
            self._workers.append(
                Worker(f"{self.name}/{worker}", self, partial(self._open_backend, worker))
            )
        self._tell(self._loaded.set_result, None)
        return backend

    def _open_backend(self, worker: int) -> Backend:
        assert self._model is not None
        weights, tuning = self._model.weights, self._model.tuning
        limits = tuning.worker_limits(
            weights.limits, vocabulary=weights.facts.vocabulary, worker=worker
        )
        backend = weights.open_backend(limits, flash_attention=tuning.flash_attention)
        with self._changed:
            self._workers_open += 1
        return backend

    def _not_opened(self, error: BaseException | None) -> None:
        if self._loaded.done() or self._workers_open:
            log.warning("%s has a worker less: %s", self.name, error)
            return
        self._dead = True
        if not isinstance(error, ApplianceError):
            log.error("%s could not be loaded", self.name, exc_info=error)
            error = LoadFailed(repr(error))
        self._tell(self._loaded.set_exception, error)

    def _die(self, error: BaseException) -> None:
        """End every worker; the first to call this says so."""
        with self._changed:
            is_first, self._dead = not self._dead, True
            self._changed.notify_all()
        if not is_first:
            return
        foreseen = isinstance(error, EngineDied)
        log.error("engine of %s died: %s", self.name, error, exc_info=None if foreseen else error)
        if not self._closing:
            # First of all: whoever hears of the death and calls again finds the next load begun.
            self._tell(self._on_death)
        self._fail_owed()

    def _fail_owed(self) -> None:
        with self._changed:
            self._dead = True
            self._tokens_in_batches = 0
            owed = self._queue.clear()
        now_ns = self._clock.monotonic_ns()
        for job in owed:
            job.finish(EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S), now_ns)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)
