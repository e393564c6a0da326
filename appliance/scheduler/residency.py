"""Residency: a call's way to a model that may be loaded, being tried or loaded, or not.

Owns how long a call waits for a cold model, the tokenizers, and what keeps a model in memory:
leases, a pin, and the idle time.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import (
    ApplianceError,
    EngineRestarting,
    ModelNotServed,
    ModelWarming,
    RetryableError,
)
from appliance.core.limits import Limits
from appliance.engine.loader import Loader, TextEncoder
from appliance.engine.screening import Screening
from appliance.engine.tuning import Tuning
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.engine import Engine
from appliance.scheduler.idle_calibration import IdleCalibration
from appliance.scheduler.lease import Lease
from appliance.scheduler.load_times import LoadTimes
from appliance.scheduler.model_pool import NS_PER_S, TRY_AGAIN_S, ModelPool
from appliance.scheduler.model_status import file_reason
from appliance.scheduler.pool_entry import PoolEntry, WeightsKey, weights_key
from appliance.scheduler.threads import ThreadPool

log = logging.getLogger("gigarouter.residency")

OPENING_S = 2.0
"""A call waits so long for a tokenizer, however impatient it is: most open in a tenth of it, and
without one the call's price is not known."""
TRIAL_S = 5.0
"""Seconds that a trial takes, for a guess at when to come back."""


class Residency:
    """Loads models when they are first called, and evicts them when another needs the memory."""

    def __init__(
        self,
        loader: Loader,
        threads: ThreadPool,
        *,
        clock: Clock,
        limits: Limits,
        cache: VectorCache,
        memory_bytes: int | None = None,
        idle_s: int = 0,
        times: LoadTimes | None = None,
        screening: Screening | None = None,
    ) -> None:
        """Wire it.

        `memory_bytes` is what all models together may take (None: whatever they need); `idle_s` is
        how long a model stays that nobody calls (0: until its room is needed); `screening` tries
        files before they are loaded (None: none is tried).
        """
        self._loader = loader
        self._threads = threads
        self._clock = clock
        self._limits = limits
        self._idle_s = idle_s
        self._screening = screening
        self.pool = ModelPool(
            loader,
            clock=clock,
            limits=limits,
            cache=cache,
            memory_bytes=memory_bytes,
            times=times or LoadTimes(None),
            screening=screening,
            on_unused=self._drop_stale,
        )
        self.calibration = IdleCalibration(self.pool, loader, screening, clock)
        self._encoders: dict[WeightsKey, asyncio.Task[TextEncoder]] = {}
        self._opened_ns: dict[WeightsKey, int] = {}
        """When each of them was opened, or failed to be, last."""
        self.is_preloading = False
        """True while the models of the start are loaded."""
        self._named: set[WeightsKey] | None = None
        """What the catalogue's models compute with; None: it was not said."""
        # Opening one takes a second if its vocabulary is large: texts must not wait for that.
        self._opener = ThreadPool(workers=1, calls_max=limits.tokenizing_calls_max)

    def __repr__(self) -> str:
        """Count engines."""
        return f"<Residency [{len(self.pool.entries)} engines]>"

    def is_loaded(self, spec: ModelSpec) -> bool:
        """Say whether the model can compute now."""
        entry = self.pool.entries.get(weights_key(spec))
        return entry is not None and entry.is_usable

    def entry(self, spec: ModelSpec) -> PoolEntry | None:
        """Return what is known of a model that is or was in memory."""
        return self.pool.entries.get(weights_key(spec))

    def reason(self, spec: ModelSpec) -> str | None:
        """Return why the model cannot be served, or None."""
        found = file_reason(spec, self._screening)
        if found is not None:
            return found
        entry = self.pool.entries.get(weights_key(spec))
        return (
            entry.reason if entry and entry.reason and not self.pool.may_try_again(entry) else None
        )

    def tokens_max(self, spec: ModelSpec) -> int:
        """Return the tokens of the longest sequence that the model takes here; reads its file."""
        return self._loader.tokens_max(spec)

    def tuning(self, spec: ModelSpec) -> Tuning | None:
        """Return how the model is computed, or None while it is not loaded."""
        entry = self.pool.entries.get(weights_key(spec))
        model = entry.engine.model if entry and entry.engine else None
        return model.tuning if model else None

    def engines(self) -> list[Engine]:
        """Return the engine of every model that was loaded and has not died since."""
        found = [entry.engine for entry in self.pool.entries.values()]
        return [engine for engine in found if engine is not None and engine.is_usable]

    def require_served(self, spec: ModelSpec) -> None:
        """Refuse a model whose file is missing or was found to be unusable.

        Raises:
            ModelNotServed: as said.
        """
        # What is in memory needs its file no more, and each call would ask the disk for it.
        reason = None if self.is_loaded(spec) else self.reason(spec)
        if reason is not None:
            raise ModelNotServed(model=spec.id, reason=reason)

    def is_served(self, spec: ModelSpec) -> bool:
        """Say whether a model's file is here and usable."""
        return self.is_loaded(spec) or self.reason(spec) is None

    @contextmanager
    def lease(self, spec: ModelSpec) -> Iterator[Lease]:
        """Yield a lease on a model, loaded or not: nothing of it is freed while the lease lives."""
        lease = Lease(self.pool.leases, weights_key(spec), self._threads)
        try:
            yield lease
        finally:
            lease.release()

    async def encoder(
        self, spec: ModelSpec, *, wait_s: float | None = None, key: str = ""
    ) -> TextEncoder:
        """Return the model's tokenizer, built once; needs no weights. Call it under a lease.

        It is opened once the model's file has passed its trial; that is waited for at most `wait_s`
        seconds (None: as long as a call may take).

        Raises:
            ModelWarming: its file is being tried, or it is being opened.
            Draining: the server stops before the file was tried.
            ModelNotServed: the file has none that we can use, or failed its trial.
            QueueFull: too many calls wait for a tokenizer thread.
        """
        wait_s = self._limits.call_seconds_max if wait_s is None else wait_s
        weights = weights_key(spec)
        if weights not in self._encoders:
            self.require_served(spec)
            if not self.pool.is_tried(spec):
                self.ready(spec)
                entry = self.pool.entries[weights]
                await self._until(spec, entry, entry.tried, wait_s=wait_s, key=key)
        task = self._encoders.get(weights)
        if task is None or self._may_open_again(weights, task):
            task = asyncio.create_task(self._opener.run(self._loader.open_encoder, spec))
            self._encoders[weights] = task
            self._opened_ns[weights] = self._clock.monotonic_ns()
        try:
            if task.done():
                return task.result()
            async with asyncio.timeout(max(wait_s, OPENING_S)):
                return await asyncio.shield(task)
        except TimeoutError:
            raise ModelWarming(model=spec.id, retry_after_s=1) from None
        except RetryableError:
            raise
        except Exception as error:
            raise ModelNotServed(model=spec.id, reason=_reason_of(error)) from error

    def _may_open_again(self, weights: WeightsKey, task: "asyncio.Task[TextEncoder]") -> bool:
        """Say whether a tokenizer that could not be opened is tried again, as weights are."""
        if not task.done() or (not task.cancelled() and task.exception() is None):
            return False
        if task.cancelled() or isinstance(task.exception(), RetryableError):
            return True
        since_ns = self._clock.monotonic_ns() - self._opened_ns[weights]
        return since_ns > TRY_AGAIN_S * NS_PER_S

    def ready(self, spec: ModelSpec) -> Engine | None:
        """Return the model's engine if it can compute now, and start loading it if not."""
        entry = self.pool.entries.get(weights_key(spec))
        if entry is None or self.pool.may_try_again(entry):
            entry = self._begin(spec)
        entry.used_ns = self._clock.monotonic_ns()
        return entry.engine if entry.is_usable else None

    async def wait(self, spec: ModelSpec, *, wait_s: float, key: str = "") -> Engine:
        """Return the model's engine, waiting at most `wait_s` seconds for it to load.

        Raises:
            ModelWarming: it is still being tried or loaded, or too many calls wait for it already.
            Draining: the server stops before its file was tried.
            EngineRestarting: the same, after its engine died.
            ModelNotServed: it could not be loaded.
        """
        engine = self.ready(spec)
        if engine is not None:
            return engine
        entry = self.pool.entries[weights_key(spec)]
        await self._until(spec, entry, entry.done, wait_s=wait_s, key=key)
        if entry.engine is None:
            raise self._later(spec, entry)
        return entry.engine

    async def _until(
        self,
        spec: ModelSpec,
        entry: PoolEntry,
        future: asyncio.Future[None],
        *,
        wait_s: float,
        key: str,
    ) -> None:
        """Wait for a future of an entry as one of those whose number is bounded."""
        if wait_s <= 0 or entry.leaving or self._is_crowded(entry, key):
            self.require_served(spec)
            raise self._later(spec, entry)
        entry.waiters[key] = entry.waiters.get(key, 0) + 1
        try:
            async with asyncio.timeout(wait_s):
                await asyncio.shield(future)
        except TimeoutError:
            raise self._later(spec, entry) from None
        except RetryableError:
            raise
        except ApplianceError as error:
            raise ModelNotServed(model=spec.id, reason=error.message) from error
        finally:
            entry.waiters[key] -= 1
            if not entry.waiters[key]:
                del entry.waiters[key]

    async def preload(self, specs: Iterable[ModelSpec]) -> None:
        """Load models and their tokenizers; one that fails is logged and left to its callers."""
        self.is_preloading = True
        try:
            for spec in specs:
                await self._preload(spec)
        finally:
            self.is_preloading = False

    async def _preload(self, spec: ModelSpec) -> None:
        try:
            with self.lease(spec):
                await self.encoder(spec)
                await self.wait(spec, wait_s=self._limits.call_seconds_max)
        except ApplianceError as error:
            log.error("%s cannot be preloaded: %s", spec.id, error.message)  # noqa: TRY400 - foreseen

    def pin(self, spec: ModelSpec, *, on: bool) -> None:
        """Pin a loaded model, so that it is not evicted; or unpin it."""
        (self.pool.pinned.add if on else self.pool.pinned.discard)(weights_key(spec))
        self.pool.reconcile()

    def is_pinned(self, spec: ModelSpec) -> bool:
        """Say whether the model stays."""
        return weights_key(spec) in self.pool.pinned

    async def unload(self, spec: ModelSpec) -> None:
        """Free a model as soon as the calls that compute with it have ended."""
        entry = self.entry(spec)
        if entry is None:
            self._drop_encoder(spec)
            return
        self.pool.leave(entry)
        self.pool.reconcile()
        await entry.gone.wait()
        self._drop_encoder(spec)

    def keep_only(self, specs: Iterable[ModelSpec]) -> None:
        """Free what no model of a new catalogue names, as soon as the calls with it have ended."""
        found = list(specs)
        self._named = {weights_key(spec) for spec in found}
        self.pool.keep_only(found)
        for weights in list(self._encoders):
            self._drop_stale(weights)

    def drain(self) -> None:
        """End every trial at once, and the calls that wait for one."""
        self.stop_watching()
        self.pool.drain()

    def stop_watching(self) -> None:
        """Hold no end of the process against a model's file from now on; on any thread."""
        if self._screening is not None:
            self._screening.stop_watching()

    async def run(self) -> None:
        """Free models that nobody has called for long, until cancelled."""
        while self._idle_s:
            await asyncio.sleep(min(5.0, self._idle_s / 2))
            horizon_ns = self._clock.monotonic_ns() - self._idle_s * NS_PER_S
            for entry in list(self.pool.entries.values()):
                if entry.used_ns < horizon_ns and self.pool.may_go(entry):
                    log.info("%s is freed: nobody called it for %d s", entry.spec.id, self._idle_s)
                    self.pool.leave(entry)
            self.pool.reconcile()

    async def close(self) -> None:
        """Free every model once no lease on it is left.

        A thread that does not return within `close_seconds_max` keeps its model: the process, which
        is about to end, frees it.
        """
        opening = [task for task in self._encoders.values() if not task.done()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.close_seconds_max):
                await self.pool.leases.all_free()
                if opening:
                    await asyncio.wait(opening)
        await self.pool.close()
        for weights, task in self._encoders.items():
            if not self.pool.leases.count(weights):
                _close(task)
        self._encoders.clear()
        self._opener.close(wait=self._opener.is_idle)

    def _begin(self, spec: ModelSpec) -> PoolEntry:
        task = self._encoders.get(weights_key(spec))
        is_known = task is not None and task.done() and not task.cancelled()
        known = task.result().model_bytes if task and is_known and not task.exception() else 0
        size = known or (spec.path.stat().st_size if spec.path.exists() else 0)
        return self.pool.begin(spec, size=size)

    def _is_crowded(self, entry: PoolEntry, key: str) -> bool:
        """Say whether too many wait for a model, or too many of one key."""
        return (
            sum(entry.waiters.values()) >= self._limits.warming_waiters_max
            or entry.waiters.get(key, 0) >= self._limits.warming_waiters_per_key_max
        )

    def _later(self, spec: ModelSpec, entry: PoolEntry) -> RetryableError:
        elapsed_s = (self._clock.monotonic_ns() - entry.began_ns) / NS_PER_S
        expected_s = entry.expected_s + (TRIAL_S if entry.trial is not None else 0)
        left_s = max(1, min(60, round(expected_s - elapsed_s + 0.5)))
        if entry.restarting:
            return EngineRestarting(model=spec.id, retry_after_s=left_s)
        if entry.trial is not None:
            return ModelWarming(
                model=spec.id, retry_after_s=left_s, doing="tried before its first load"
            )
        return ModelWarming(model=spec.id, retry_after_s=left_s)

    def _drop_stale(self, weights: WeightsKey) -> None:
        """Free the tokenizer of a file that no model names any more, unless a call uses it."""
        is_stale = self._named is not None and weights not in self._named
        if is_stale and weights in self._encoders and not self.pool.leases.count(weights):
            _close(self._encoders.pop(weights))

    def _drop_encoder(self, spec: ModelSpec) -> None:
        """Free a tokenizer, unless a call came in the meantime."""
        weights = weights_key(spec)
        if not self.pool.leases.count(weights) and weights in self._encoders:
            _close(self._encoders.pop(weights))


def _close(task: "asyncio.Task[TextEncoder]") -> None:
    if not task.done():
        task.add_done_callback(_close)  # its caller has left, and its thread has not
    elif not task.cancelled() and task.exception() is None:
        task.result().close()


def _reason_of(error: BaseException) -> str:
    return error.message if isinstance(error, ApplianceError) else repr(error)
