"""Idle calibration: models are measured while nobody calls, and computed as was found from then on.

Owns when that may be: nothing is tried, loaded, freed or computed, and nothing was for a moment. A
call that comes ends the measurement within some milliseconds; it begins anew in the next quiet
moment. A model is held meanwhile: it is neither evicted nor replaced under the measurement.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext

from appliance.core.cancellation import uninterrupted
from appliance.core.clock import Clock
from appliance.core.errors import ApplianceError
from appliance.engine.loader import Loader
from appliance.engine.screening import Screening
from appliance.scheduler.engine import Engine
from appliance.scheduler.model_pool import NS_PER_S, ModelPool
from appliance.scheduler.pool_entry import PoolEntry, weights_key

log = logging.getLogger("gigarouter.calibration")

LOOK_S = 0.5
"""How often it is looked whether anybody calls; two looks that find the same are a quiet moment."""
WATCH_S = 0.02
"""The same while a model is measured."""
REST_S = 30
"""After a measurement that decided nothing, because other programs use the cores; doubled each time
up to an hour."""
REST_S_MAX = 3600

Activity = tuple[tuple[int, int], ...]
"""The number and the batches of each engine."""


class IdleCalibration:
    """Measures the models in memory, one after the other."""

    def __init__(
        self, pool: ModelPool, loader: Loader, screening: Screening | None, clock: Clock
    ) -> None:
        """Prepare; `run` measures."""
        self._pool = pool
        self._loader = loader
        self._screening = screening
        self._clock = clock
        self._settled: set[int] = set()
        """The numbers of engines that need no measurement any more."""
        self._rest_s = REST_S
        self._not_before_ns = 0

    def __repr__(self) -> str:
        """Count what needs none any more."""
        return f"<IdleCalibration [{len(self._settled)} settled]>"

    async def run(self) -> None:
        """Measure what is in memory and was not measured yet, until cancelled."""
        before = None
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._activity()
            is_quiet, before = now is not None and now == before, now
            is_rested = self._clock.monotonic_ns() >= self._not_before_ns
            if is_quiet and is_rested and (entry := self._next()) is not None:
                await self._measure(entry)
                before = None

    def _activity(self) -> Activity | None:
        """Return what was computed until now, or None if anything is on its way."""
        found = []
        for entry in self._pool.entries.values():
            if entry.state in {"trying", "waiting", "loading", "leaving"}:
                return None
            if entry.engine is not None and entry.engine.is_usable:
                if entry.engine.tokens_waiting:
                    return None
                found.append((entry.engine.number, entry.engine.counters.batches))
        return None if self._pool.freeing_bytes else tuple(found)

    def _next(self) -> PoolEntry | None:
        here = {e.engine.number for e in self._pool.entries.values() if e.engine is not None}
        self._settled &= here
        for entry in self._pool.entries.values():
            engine = entry.engine
            if entry.state == "loaded" and engine and engine.number not in self._settled:
                return entry
        return None

    async def _measure(self, entry: PoolEntry) -> None:
        """Measure a model until that is done or somebody calls."""
        assert entry.engine is not None
        engine, is_over = entry.engine, threading.Event()
        weights = weights_key(entry.spec)
        before = self._activity()
        self._pool.leases.acquire(weights)
        work = asyncio.create_task(
            asyncio.to_thread(self._work, entry, engine, lambda: not is_over.is_set())
        )
        try:
            while not work.done():
                await asyncio.wait([work], timeout=WATCH_S)
                if self._activity() != before:
                    is_over.set()
        finally:
            # The thread computes with the model: it is given back when the thread is, however often
            # this is cancelled meanwhile.
            is_over.set()
            try:
                await uninterrupted(asyncio.wait([work]))
            finally:
                self._pool.leases.release(weights)
        if work.result():
            self._settled.add(engine.number)
            self._rest_s = REST_S
        elif self._activity() == before:
            self._not_before_ns = self._clock.monotonic_ns() + self._rest_s * NS_PER_S
            self._rest_s = min(REST_S_MAX, 2 * self._rest_s)

    # -- on another thread ----------------------------------------------------------------------

    def _work(self, entry: PoolEntry, engine: Engine, is_wanted: Callable[[], bool]) -> bool:
        """Measure a model and have it computed as was found; say whether it is settled."""
        marker = self._screening.marker if self._screening else None
        try:
            with engine.worker_group.held() as model:
                if model is None or not self._loader.is_measurable(entry.spec):
                    return True
                with marker.loading(entry.spec.id) if marker else nullcontext():
                    tuning = self._loader.measure_tuning(entry.spec, model.weights, is_wanted)
                if tuning is None:
                    return False
                engine.worker_group.retune(tuning)
        except (ApplianceError, OSError) as error:
            log.warning("%s cannot be measured: %s", entry.spec.id, error)
        except Exception:
            # It is computed as before; others are measured still.
            log.exception("%s cannot be measured", entry.spec.id)
        return True
