"""WorkerGroup: the workers of one engine, from the load of its model until the weights are freed.

Owns the threads, the loaded weights, and the order in which they go: every backend is closed by its
own worker before the last one frees the weights.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from appliance.engine.backend import Backend
from appliance.engine.loader import LoadedModel
from appliance.engine.tuning import Tuning
from appliance.scheduler.worker import BatchSource, Worker

log = logging.getLogger("gigarouter.engine")


class WorkerOwner(BatchSource, Protocol):
    """The engine that workers belong to; called on their threads."""

    def model_opened(self, model: LoadedModel) -> None:
        """Take the weights before any worker has a backend; or their new tuning, later.

        Workers that wait for a batch look whether they are retired.
        """
        ...

    def worker_opened(self) -> None:
        """Take note that one more worker can compute."""
        ...

    def model_loaded(self) -> None:
        """Take note that the first worker can compute and the others have been started."""
        ...

    def load_failed(self, error: BaseException) -> None:
        """Take the reason why no worker will ever compute."""
        ...

    def worker_closed(self, error: BaseException | None) -> None:
        """Take note that one worker less can compute, and of the error that ended it."""
        ...

    def all_ended(self) -> None:
        """Take note that no worker is left; the weights are freed next."""
        ...


class WorkerGroup:
    """Loads a model and runs its workers."""

    def __init__(
        self, name: str, open_model: Callable[[], LoadedModel], owner: WorkerOwner
    ) -> None:
        """Prepare; `start` loads."""
        self._name = name
        self._open_model = open_model
        self._owner = owner
        self._model: LoadedModel | None = None
        self._lock = threading.Lock()
        self._alive = 1
        """Workers that have not ended, and those that are about to be started."""
        self._workers: list[Worker] = []

    def __repr__(self) -> str:
        """Count those that run."""
        return f"<WorkerGroup {self._name} [{self._alive} alive]>"

    def start(self) -> None:
        """Begin to load the model, on the first worker's thread."""
        self._workers.append(Worker(f"{self._name}/0", self._owner, self._load, self._first_ended))

    def join(self) -> None:
        """Return once every worker has ended and the weights are freed."""
        # The first worker starts the others, so all of them are in the list once it has ended.
        for worker in self._workers:
            worker.join()

    @contextmanager
    def held(self) -> Iterator[LoadedModel | None]:
        """Yield the model, which is not freed during the block; None: it is not there any more.

        On any thread; one block at a time, and not while `join` waits.
        """
        with self._lock:
            model = self._model if self._alive else None
            self._alive += model is not None
        try:
            yield model
        finally:
            if model is not None:
                self._ended(None, opened=False)

    def retune(self, tuning: Tuning) -> None:
        """Compute as a tuning says from now on; call it in the block of `held`.

        Workers whose context must be another one end once their successors have theirs; those that
        are too many end now. What cannot be opened leaves the former worker at work.
        """
        assert self._model is not None
        former, limits = self._model.tuning, self._model.weights.limits
        model = self._model = replace(self._model, tuning=tuning, notify=None)
        for number, worker in enumerate(list(self._workers)):
            each = former.worker_limits(limits, worker=number)
            if number >= tuning.workers:
                worker.retire()
            elif former.attention(each) != tuning.attention(each):
                self._start(number, partial(self._succeed, number, worker))
        self._owner.model_opened(model)

    # -- on the workers' threads ----------------------------------------------------------------

    def _load(self) -> Backend:
        """Load the model, open the first backend, and start the other workers."""
        self._model = self._open_model()
        self._owner.model_opened(self._model)
        backend = self._open_backend(0)
        for worker in range(1, self._model.tuning.workers):
            self._start(worker, partial(self._open_backend, worker))
        self._owner.model_loaded()
        return backend

    def _start(self, worker: int, opens: Callable[[], Backend]) -> None:
        with self._lock:
            self._alive += 1
        try:
            started = Worker(f"{self._name}/{worker}", self._owner, opens, self._other_ended)
            self._workers.append(started)
        except RuntimeError as error:  # there is no thread that could report its own end
            self._other_ended(error, opened=False)

    def _open_backend(self, worker: int) -> Backend:
        assert self._model is not None
        weights, tuning = self._model.weights, self._model.tuning
        limits = tuning.worker_limits(weights.limits, worker=worker)
        backend = weights.open_backend(limits, flash_attention=tuning.attention(limits))
        self._owner.worker_opened()
        return backend

    def _succeed(self, worker: int, former: Worker) -> Backend:
        """Open a backend in the place of another worker's, which ends."""
        backend = self._open_backend(worker)
        former.retire()
        assert self._model is not None
        self._owner.model_opened(self._model)
        return backend

    def _first_ended(self, error: BaseException | None, *, opened: bool) -> None:
        if not opened and error is not None:
            self._owner.load_failed(error)
        self._ended(error, opened=opened)

    def _other_ended(self, error: BaseException | None, *, opened: bool) -> None:
        if not opened:
            log.warning("%s has a worker less: %s", self._name, error)
        self._ended(error, opened=opened)

    def _ended(self, error: BaseException | None, *, opened: bool) -> None:
        if opened:
            self._owner.worker_closed(error)
        with self._lock:
            self._alive -= 1
            is_last = not self._alive
        if is_last:
            self._owner.all_ended()
            if self._model is not None:
                self._model.weights.close()
