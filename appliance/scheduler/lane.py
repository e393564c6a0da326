"""Lane: one thread, one backend, one bounded queue.

Owns the thread that loads the model, computes every bin and frees it again; nobody else touches the
backend. Deliberately decides nothing about which models are loaded.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from appliance.core.clock import Clock
from appliance.core.errors import (
    ApplianceError,
    EngineDied,
    EngineRestarting,
    InferenceFailed,
    LoadFailed,
    QueueFull,
)
from appliance.engine.backend import Backend, ModelFacts
from appliance.scheduler.job import Job
from appliance.scheduler.packer import pack
from appliance.tasks.sequence import TokenSequence

log = logging.getLogger("gigarouter.lane")

RESTART_RETRY_S = 2
NS_PER_SECOND = 1_000_000_000


class Lane:
    """Computes jobs, sharing each call of the backend between all that wait."""

    def __init__(
        self,
        name: str,
        open_backend: Callable[[], Backend],
        *,
        clock: Clock,
        queue_tokens_max: int,
        on_death: Callable[[], None],
    ) -> None:
        self.name = name
        self.facts: ModelFacts | None = None
        """Known once the model is loaded."""
        self._open_backend = open_backend
        self._clock = clock
        self._queue_tokens_max = queue_tokens_max
        self._on_death = on_death
        self._jobs: deque[Job] = deque()
        self._in_flight: list[Job] = []
        """Jobs with sequences in the bin that is being computed."""
        self._queued_tokens = 0
        self._changed = threading.Condition()
        self._closing = False
        self._dead = False
        self._rate = 2_000.0
        """Tokens a second, learned; the first guess is a small CPU's."""
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name=f"lane {name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Say what waits."""
        state = "dead" if self._dead else "ready" if self.facts else "loading"
        return (
            f"<Lane {self.name} [{state} | {len(self._jobs)} jobs | {self._queued_tokens} tokens]>"
        )

    @property
    def is_usable(self) -> bool:
        """Say whether jobs can be submitted."""
        return self.facts is not None and not self._dead

    @property
    def loaded(self) -> asyncio.Future[None]:
        """Done when the model can compute, or holds the error that it could not be loaded."""
        return self._loaded

    def submit(self, sequences: Sequence[TokenSequence]) -> Job:
        """Queue sequences; call on the loop's thread.

        Raises:
            QueueFull: the queue has no room for them.
            EngineRestarting: the backend died.
        """
        assert self.facts is not None
        assert sequences
        tokens = sum(map(len, sequences))
        with self._changed:
            if self._dead or self._closing:
                raise EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S)
            if self._queued_tokens + tokens > self._queue_tokens_max:
                raise QueueFull(retry_after_s=self._backlog_s())
            job = Job(sequences, width=self.facts.width, now_ns=self._clock.monotonic_ns())
            self._jobs.append(job)
            self._queued_tokens += tokens
            self._changed.notify()
        return job

    def close(self) -> None:
        """Stop after the bin that is being computed, and free the backend."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _backlog_s(self) -> int:
        return max(1, min(60, round(self._queued_tokens / self._rate)))

    # -- on the lane's own thread -------------------------------------------------------------

    def _work(self) -> None:
        try:
            backend = self._open_backend()
        except ApplianceError as error:
            self._dead = True
            self._tell(self._set_loaded, error)
            return
        except BaseException as error:  # whoever waits must hear it
            log.exception("%s could not be loaded", self.name)
            self._dead = True
            self._tell(self._set_loaded, LoadFailed(repr(error)))
            return
        self.facts = backend.facts
        self._tell(self._set_loaded, None)
        try:
            while (picks := self._next_bin(backend)) is not None:
                self._in_flight = [job for job, _ in picks]
                if picks:
                    self._compute(backend, picks)
        except EngineDied as error:
            log.error("engine of %s died: %s", self.name, error.message)  # noqa: TRY400 - foreseen
        except Exception:
            log.exception("engine of %s died", self.name)
        finally:
            self._end(backend)

    def _next_bin(self, backend: Backend) -> list[tuple[Job, int]] | None:
        """Wait for work; return (job, index of the sequence) picks, or None when closing."""
        limits = backend.limits
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            self._drop_cancelled()
            front = list(islice(self._jobs, limits.sequences_max))
            waiting = [
                [len(s) for s in job.sequences[job.next : job.next + limits.sequences_max]]
                for job in front
            ]
            picks: list[tuple[Job, int]] = []
            for job, taken in zip(front, pack(waiting, limits), strict=True):
                picks += [(job, job.next + offset) for offset in range(taken)]
                job.next += taken
                if taken:
                    # To the back, or out: the next bin begins with those that got nothing.
                    self._jobs.remove(job)
                    if job.next < len(job.sequences):
                        self._jobs.append(job)
            return picks

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._jobs if job.cancelled]:
            self._jobs.remove(job)
            self._queued_tokens -= sum(len(s) for s in job.sequences[job.next :])

    def _compute(self, backend: Backend, picks: list[tuple[Job, int]]) -> None:
        started_ns = self._clock.monotonic_ns()
        for job, _ in picks:
            job.started_ns = job.started_ns or started_ns
        sequences = [job.sequences[index] for job, index in picks]
        tokens = sum(map(len, sequences))
        try:
            matrix = backend.compute(sequences)
        except InferenceFailed as error:
            jobs = {id(job): job for job, _ in picks}
            if len(jobs) > 1:
                # One poisonous input must not fail its neighbours: each job alone, then.
                for key in jobs:
                    self._compute(backend, [pick for pick in picks if id(pick[0]) == key])
                return
            self._fail(next(iter(jobs.values())), error, tokens)
            return
        now_ns = self._clock.monotonic_ns()
        elapsed = max(1, now_ns - started_ns)
        self._rate += 0.1 * (tokens * NS_PER_SECOND / elapsed - self._rate)
        with self._changed:
            # First: whoever hears of the result and calls again finds the room.
            self._queued_tokens -= tokens
        for row, (job, index) in enumerate(picks):
            job.matrix[index] = matrix[row]
            job.left -= 1
            if job.left == 0:
                job.finish(None, now_ns)

    def _fail(self, job: Job, error: InferenceFailed, tokens: int) -> None:
        log.warning("a bin of %s failed: %s", self.name, error.message)
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
            self._queued_tokens -= tokens + sum(len(s) for s in job.sequences[job.next :])
        job.finish(error, self._clock.monotonic_ns())

    def _end(self, backend: Backend) -> None:
        """Fail everything that is owed, then free the backend."""
        with self._changed:
            self._dead = True
            owed = list(self._jobs)
            self._jobs.clear()
            self._queued_tokens = 0
        if not self._closing:
            # First of all: whoever hears of the death and calls again finds the next load begun.
            self._tell(self._on_death)
        error = EngineRestarting(model=self.name, retry_after_s=RESTART_RETRY_S)
        for job in (*self._in_flight, *owed):
            if job.left:
                job.finish(error, self._clock.monotonic_ns())
        try:
            backend.close()
        except ApplianceError:
            log.exception("closing %s failed", self.name)

    def _set_loaded(self, error: BaseException | None) -> None:
        if error is None:
            self._loaded.set_result(None)
        else:
            self._loaded.set_exception(error)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)
