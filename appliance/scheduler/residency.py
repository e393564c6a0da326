"""Residency: which models are loaded, being loaded, or not.

Owns one engine for each file of weights, the single flight of every load, and how long a caller
of a cold model waits. Deliberately evicts nothing yet: what was loaded stays until the server
stops.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
from appliance.engine.tuning import Tuning
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.engine import Engine
from appliance.scheduler.presence import file_reason
from appliance.scheduler.threads import ThreadPool

log = logging.getLogger("gigarouter.residency")

Weights = tuple[Path, str, bool, str | None]
"""File, pooling, segments and SHA-256: two models that compute the same share one engine, and a
file that was replaced gets a new one."""

LOAD_BYTES_PER_S = 200_000_000
"""The first guess of how fast a file is loaded; real loads replace it."""
NS_PER_S = 1_000_000_000
TRY_AGAIN_S = 30
"""After a load failed, calls hear the reason this long; the next one loads again."""
HEALTHY_S = 300
"""An engine that lived this long begins a new row of deaths."""
RELOADS_MAX = 5
"""Deaths in a row after which a model rests for `TRY_AGAIN_S`."""


@dataclass(slots=True)
class _Slot:
    engine: Engine
    began_ns: int
    expected_s: float
    restarting: bool
    waiters: int = 0
    reason: str = ""
    """Why it could not be loaded; empty otherwise."""
    failed_ns: int = 0
    """When that was."""


class Residency:
    """Loads models when they are first called."""

    def __init__(
        self,
        loader: Loader,
        threads: ThreadPool,
        *,
        clock: Clock,
        limits: Limits,
        cache: VectorCache,
    ) -> None:
        self._loader = loader
        self._threads = threads
        self._clock = clock
        self._limits = limits
        self._cache = cache
        self._slots: dict[Weights, _Slot] = {}
        self._encoders: dict[Weights, asyncio.Task[TextEncoder]] = {}
        self._load_s: dict[Weights, float] = {}
        self._deaths: dict[Weights, int] = {}

    def __repr__(self) -> str:
        """Count engines."""
        return f"<Residency [{len(self._slots)} engines]>"

    def is_loaded(self, spec: ModelSpec) -> bool:
        """Say whether the model can compute now."""
        slot = self._slots.get(_weights(spec))
        return slot is not None and slot.engine.is_usable

    def reason(self, spec: ModelSpec) -> str | None:
        """Return why the model cannot be served, or None."""
        missing = file_reason(spec)
        if missing is not None:
            return missing
        slot = self._slots.get(_weights(spec))
        return slot.reason if slot and slot.reason and not self._may_try_again(slot) else None

    def tuning(self, spec: ModelSpec) -> Tuning | None:
        """Return how the model is computed, or None while it is not loaded."""
        slot = self._slots.get(_weights(spec))
        return slot.engine.tuning if slot else None

    def engines(self) -> list[Engine]:
        """Return the engine of every model that was loaded and has not died since."""
        return [slot.engine for slot in self._slots.values() if slot.engine.is_usable]

    def require_served(self, spec: ModelSpec) -> None:
        """Refuse a model whose file is missing or was found to be unusable.

        Raises:
            ModelNotServed: as said.
        """
        reason = self.reason(spec)
        if reason is not None:
            raise ModelNotServed(model=spec.id, reason=reason)

    async def encoder(self, spec: ModelSpec) -> TextEncoder:
        """Return the model's tokenizer, built once; needs no weights.

        Raises:
            ModelNotServed: the file has none that we can use.
            QueueFull: too many calls wait for a tokenizer thread.
        """
        weights = _weights(spec)
        task = self._encoders.get(weights)
        if task is None:
            task = asyncio.create_task(self._threads.run(self._loader.open_encoder, spec))
            self._encoders[weights] = task
        try:
            return task.result() if task.done() else await asyncio.shield(task)
        except Exception as error:
            self._encoders.pop(weights, None)
            if isinstance(error, RetryableError):
                raise
            raise ModelNotServed(model=spec.id, reason=_reason_of(error)) from error

    def ready(self, spec: ModelSpec) -> Engine | None:
        """Return the model's engine if it can compute now, and start loading it if not."""
        slot = self._slots.get(_weights(spec))
        if slot is None or self._may_try_again(slot):
            slot = self._load(spec, restarting=False)
        return slot.engine if slot.engine.is_usable else None

    async def wait(self, spec: ModelSpec, *, wait_s: float) -> Engine:
        """Return the model's engine, waiting at most `wait_s` seconds for it to load.

        Raises:
            ModelWarming: it is still being loaded, or too many calls wait for it already.
            EngineRestarting: the same, after its engine died.
            ModelNotServed: it could not be loaded.
        """
        engine = self.ready(spec)
        if engine is not None:
            return engine
        slot = self._slots[_weights(spec)]
        if wait_s <= 0 or slot.waiters >= self._limits.warming_waiters_max:
            self.require_served(spec)
            raise self._later(spec, slot)
        slot.waiters += 1
        try:
            async with asyncio.timeout(wait_s):
                await asyncio.shield(slot.engine.loaded)
        except TimeoutError:
            raise self._later(spec, slot) from None
        except ApplianceError as error:
            raise ModelNotServed(model=spec.id, reason=error.message) from error
        finally:
            slot.waiters -= 1
        return slot.engine

    async def preload(self, specs: Iterable[ModelSpec]) -> None:
        """Load models and their tokenizers; one that fails is logged and left to its callers."""
        for spec in specs:
            try:
                await self.encoder(spec)
                await self.wait(spec, wait_s=self._limits.call_seconds_max)
            except ApplianceError as error:
                log.error("%s cannot be preloaded: %s", spec.id, error.message)  # noqa: TRY400 - foreseen

    def close(self) -> None:
        """Stop every engine and free every model."""
        for slot in self._slots.values():
            slot.engine.close()

    def _may_try_again(self, slot: _Slot) -> bool:
        """Say whether a load failed long enough ago: memory may be free, a disk be back."""
        since_ns = self._clock.monotonic_ns() - slot.failed_ns
        return bool(slot.reason) and since_ns > TRY_AGAIN_S * NS_PER_S

    def _later(self, spec: ModelSpec, slot: _Slot) -> RetryableError:
        elapsed_s = (self._clock.monotonic_ns() - slot.began_ns) / NS_PER_S
        left_s = max(1, min(60, round(slot.expected_s - elapsed_s + 0.5)))
        if slot.restarting:
            return EngineRestarting(model=spec.id, retry_after_s=left_s)
        return ModelWarming(model=spec.id, retry_after_s=left_s)

    def _load(self, spec: ModelSpec, *, restarting: bool) -> _Slot:
        weights = _weights(spec)
        guess_s = spec.path.stat().st_size / LOAD_BYTES_PER_S if spec.path.exists() else 0.0
        engine = Engine(
            spec.id,
            lambda: self._loader.open_model(spec),
            clock=self._clock,
            queue_tokens_max=self._limits.queue_tokens_max,
            on_death=lambda: self._died(spec),
            cache=self._cache,
        )
        slot = self._slots[weights] = _Slot(
            engine=engine,
            began_ns=self._clock.monotonic_ns(),
            expected_s=self._load_s.get(weights, guess_s),
            restarting=restarting,
        )
        engine.loaded.add_done_callback(lambda future: self._loaded(spec, slot, future))
        return slot

    def _loaded(self, spec: ModelSpec, slot: _Slot, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            slot.reason, slot.failed_ns = _reason_of(error), self._clock.monotonic_ns()
            log.error("%s could not be loaded: %s", spec.id, slot.reason)
            return
        took_s = (self._clock.monotonic_ns() - slot.began_ns) / NS_PER_S
        self._load_s[_weights(spec)] = took_s
        assert slot.engine.facts is not None
        log.info("%s is loaded in %.2f s: %s", spec.id, took_s, slot.engine.facts.description)

    def _died(self, spec: ModelSpec) -> None:
        weights = _weights(spec)
        lived_ns = self._clock.monotonic_ns() - self._slots[weights].began_ns
        before = 0 if lived_ns > HEALTHY_S * NS_PER_S else self._deaths.get(weights, 0)
        self._deaths[weights] = before + 1
        if self._deaths[weights] <= RELOADS_MAX:
            self._load(spec, restarting=True)
        else:
            slot = self._slots[weights]
            slot.reason = f"its engine died {RELOADS_MAX + 1} times"
            slot.failed_ns = self._clock.monotonic_ns()


def _weights(spec: ModelSpec) -> Weights:
    return spec.path, spec.entry.pooling, spec.entry.segments, spec.entry.sha256


def _reason_of(error: BaseException) -> str:
    return error.message if isinstance(error, ApplianceError) else repr(error)
