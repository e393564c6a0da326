"""Engines: what an operator does with models in memory: load, unload and pin them.

Without a server nothing is in memory, and every verb is refused with that reason.
"""

import asyncio
from collections.abc import Callable

from appliance.admin.models import Models
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import InvalidRequest
from appliance.engine.device import Device
from appliance.scheduler.file_watch import file_note
from appliance.scheduler.pool_entry import PoolEntry, weights_key
from appliance.scheduler.residency import Residency
from appliance.wire.engines import DeviceView, EngineList, EngineView, PinOrder
from appliance.wire.models import ModelOrder

LOAD_WAIT_S = 600.0
NS_PER_S = 1e9


class EngineAdmin:
    """The operator's verbs for models in memory."""

    def __init__(
        self,
        models: Models,
        residency: Residency | None,
        clock: Clock,
        devices: Callable[[], list[Device]],
        cores: int,
    ) -> None:
        self._models = models
        self._residency = residency
        self._clock = clock
        self._devices = devices
        self._cores = cores

    @property
    def serves(self) -> bool:
        """Say whether a server runs here, that is, whether models can be in memory."""
        return self._residency is not None

    async def all(self) -> EngineList:
        """Return every model that is in memory or on its way, and the devices.

        Raises:
            InvalidRequest: no server runs.
        """
        residency = self._require()
        pool = residency.pool
        return EngineList(
            data=[self._view(entry.spec) for entry in pool.entries.values()],
            memory_taken=pool.taken_bytes,
            memory_max=pool.memory_bytes,
            devices=await self.devices(),
            cores=self._cores,
        )

    async def devices(self) -> list[DeviceView]:
        """Return where models can be computed, and what is free there now; nothing if unknown."""
        try:
            found = await asyncio.to_thread(self._devices)
        except (ImportError, OSError, RuntimeError):
            return []  # the library cannot be loaded: the doctor says why
        return [DeviceView(d.name, d.description, d.kind, d.memory, d.free) for d in found]

    async def load(self, order: ModelOrder) -> EngineView:
        """Load a model and its tokenizer; return when it can compute.

        Raises:
            InvalidRequest: no server runs.
            ModelNotFound: no model has this name.
            ModelNotServed: it cannot be loaded.
        """
        residency, spec = self._require(), self._models.find(order.id)
        residency.pool.forgive(spec)
        residency.require_served(spec)
        with residency.lease(spec):
            await residency.encoder(spec)
            await residency.wait(spec, wait_s=LOAD_WAIT_S)
        return self._view(spec)

    def forgive(self, spec: ModelSpec) -> None:
        """Let a model that was set aside be loaded again."""
        if self._residency is not None:
            self._residency.pool.forgive(spec)

    async def unload(self, order: ModelOrder) -> EngineView:
        """Free a model as soon as the calls that compute with it have ended.

        Raises:
            InvalidRequest: no server runs.
            ModelNotFound: no model has this name.
        """
        residency, spec = self._require(), self._models.find(order.id)
        await residency.unload(spec)
        return self._view(spec)

    async def pin(self, order: PinOrder) -> EngineView:
        """Pin a model in memory, or unpin it; it holds until the server stops.

        Raises:
            InvalidRequest: no server runs.
            ModelNotFound: no model has this name.
        """
        residency, spec = self._require(), self._models.find(order.id)
        residency.pin(spec, on=order.pinned)
        return self._view(spec)

    def _require(self) -> Residency:
        if self._residency is None:
            raise InvalidRequest("no server runs here; start one with: gigarouter serve")
        return self._residency

    def _view(self, spec: ModelSpec) -> EngineView:
        residency = self._require()
        entry = residency.entry(spec)
        now_ns = self._clock.monotonic_ns()
        engine = entry.engine if entry else None
        return EngineView(
            model=spec.id,
            state=entry.state if entry else "absent",
            bytes=entry.bytes if entry else 0,
            pinned=residency.is_pinned(spec),
            calls=residency.pool.leases.count(weights_key(spec)),
            waiting_tokens=engine.tokens_waiting if engine else 0,
            idle_s=round((now_ns - entry.used_ns) / NS_PER_S, 1)
            if entry and entry.used_ns
            else 0.0,
            progress=_progress(entry),
            reason=(entry.reason or None) if entry else None,
            step=entry.trial.trial.step if entry and entry.trial else None,
            note=file_note(entry) if entry else None,
            also=tuple(
                each.id
                for each in self._models.catalog
                if each.id != spec.id and weights_key(each) == weights_key(spec)
            ),
        )


def _progress(entry: PoolEntry | None) -> float:
    """Return how far a model is loaded; its weights come before what is measured with them."""
    if entry is None or entry.state in ("trying", "waiting", "failed"):
        return 0.0
    return round(min(0.99, entry.progress.fraction), 2) if entry.state == "loading" else 1.0
