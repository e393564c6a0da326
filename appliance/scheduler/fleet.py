"""Fleet: the models in memory, those on their way in and those on their way out.

Owns one engine for each file of weights, how many load at once, and the memory that all may take: a
model that needs room waits until those that were not called for longest are freed. None goes while
anyone computes with it. Deliberately keeps no caller waiting: residency does.
"""

import asyncio
import logging
from collections import Counter

from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import ApplianceError
from appliance.core.limits import Limits
from appliance.engine.loader import Loader
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.engine import Engine
from appliance.scheduler.loadtimes import LoadTimes
from appliance.scheduler.memory import Resident, victims
from appliance.scheduler.slot import Slot, Weights, weights_of

log = logging.getLogger("gigarouter.residency")

NS_PER_S = 1_000_000_000
TRY_AGAIN_S = 30
"""After a load failed, calls hear the reason this long; the next one loads again."""
HEALTHY_S = 300
"""An engine that lived this long begins a new row of deaths."""
RELOADS_MAX = 5
"""Deaths in a row after which a model rests for `TRY_AGAIN_S`."""
GRACE_S = 3.0
"""A model that was just loaded is not freed before those who were told to come back can have."""
LOADING_MAX = 2
"""Models that are read from the disk at once."""


class Fleet:
    """Slots by what they compute with; call on the loop's thread."""

    def __init__(
        self, loader: Loader, *, clock: Clock, limits: Limits, cache: VectorCache,
        memory_bytes: int | None, times: LoadTimes,
    ) -> None:  # fmt: skip
        self._loader = loader
        self._clock = clock
        self._limits = limits
        self._cache = cache
        self.memory_bytes = memory_bytes
        """What all models together may take; None: whatever they need."""
        self._times = times
        self.slots: dict[Weights, Slot] = {}
        self.users: Counter[Weights] = Counter()
        """Calls that compute with each, or wait for it."""
        self.pinned: set[Weights] = set()
        self._deaths: dict[Weights, int] = {}
        self._freeing: dict[asyncio.Task[None], int] = {}
        """Engines on their way out, and the memory that each still takes."""
        self._again: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Say how much memory is taken."""
        return f"<Fleet [{len(self.slots)} slots | {self.taken_bytes // 1_000_000} MB]>"

    @property
    def taken_bytes(self) -> int:
        """Return the memory that models take now, those included that come or go."""
        here = (slot.bytes for slot in self.slots.values() if slot.takes_memory)
        return sum(here) + self.freeing_bytes

    @property
    def freeing_bytes(self) -> int:
        """Return the memory that models on their way out still take."""
        return sum(self._freeing.values())

    def begin(self, spec: ModelSpec, *, size: int, restarting: bool = False) -> Slot:
        """Let a model come into memory, in the place of what was known of it."""
        weights = weights_of(spec)
        self._free(self.slots.pop(weights, None))
        slot = self.slots[weights] = Slot(
            spec=spec,
            bytes=size,
            began_ns=self._clock.monotonic_ns(),
            expected_s=self._times.expected_s(spec),
            restarting=restarting,
            done=asyncio.get_running_loop().create_future(),
        )
        slot.done.add_done_callback(_heard)
        self.settle()
        return slot

    def settle(self) -> None:
        """Free what is to go and nobody uses; load what waits and has room."""
        for weights, slot in list(self.slots.items()):
            if slot.leaving and not self.users[weights]:
                del self.slots[weights]
                self._free(slot)
        for slot in [slot for slot in self.slots.values() if slot.state == "waiting"]:
            if not self._admit(slot):
                break  # first come, first served: a small one does not overtake for ever

    def may_go(self, slot: Slot) -> bool:
        """Say whether a model can be freed now without anyone missing it."""
        weights = weights_of(slot.spec)
        since_ns = self._clock.monotonic_ns() - slot.ready_ns
        has_come = slot.ready_ns > 0 and since_ns > GRACE_S * NS_PER_S
        is_busy = bool(self.users[weights]) or weights in self.pinned
        return slot.state == "loaded" and has_come and not is_busy

    def may_try_again(self, slot: Slot) -> bool:
        """Say whether a load failed long enough ago: memory may be free, a disk be back."""
        since_ns = self._clock.monotonic_ns() - slot.failed_ns
        return bool(slot.reason) and since_ns > TRY_AGAIN_S * NS_PER_S

    def close(self) -> None:
        """Stop every engine and free every model."""
        for slot in self.slots.values():
            if slot.engine is not None:
                slot.engine.close()

    def _admit(self, slot: Slot) -> bool:
        """Load a model that waits, if it may be; say whether the next may be looked at."""
        if sum(each.state == "loading" for each in self.slots.values()) >= LOADING_MAX:
            return False
        budget = self.memory_bytes
        if budget is None or self.taken_bytes + slot.bytes <= budget:
            self._load(slot)
            return True
        if slot.bytes > budget:
            self._fail(
                slot,
                f"it needs {slot.bytes // 1_000_000:,} MB of memory, and all models together may "
                f"take {budget // 1_000_000:,} MB (memory_mb)",
            )
            return True
        self._make_room(slot, budget)
        return False

    def _make_room(self, slot: Slot, budget: int) -> None:
        residents = [
            Resident(weights, each.bytes, each.used_ns, self.may_go(each))
            for weights, each in self.slots.items()
            if each.takes_memory and not each.leaving
        ]
        # What is on its way out already is as good as free.
        need = slot.bytes + sum(resident.bytes for resident in residents) - budget
        chosen = victims(residents, need=need)
        for weights in chosen or ():
            log.info("%s makes room for %s", self.slots[weights].spec.id, slot.spec.id)
            self._free(self.slots.pop(weights))
        if chosen is None and self._again is None:
            # Somebody computes with all of them, or they have only just come.
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(GRACE_S / 4, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self.settle()

    def _load(self, slot: Slot) -> None:
        spec = slot.spec
        slot.began_ns = self._clock.monotonic_ns()
        slot.engine = Engine(
            spec.id,
            lambda: self._loader.open_model(spec),
            clock=self._clock,
            queue_tokens_max=self._limits.queue_tokens_max,
            on_death=lambda: self._died(slot),
            cache=self._cache,
        )
        slot.engine.loaded.add_done_callback(lambda future: self._loaded(slot, future))

    def _loaded(self, slot: Slot, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            reason = error.message if isinstance(error, ApplianceError) else repr(error)
            log.error("%s could not be loaded: %s", slot.spec.id, reason)
            self._fail(slot, reason)
            self.settle()
            return
        assert slot.engine is not None
        assert slot.engine.model is not None
        described = slot.engine.model.weights.facts.description
        slot.ready_ns = slot.used_ns = self._clock.monotonic_ns()
        took_s = (slot.ready_ns - slot.began_ns) / NS_PER_S
        self._times.learn(slot.spec, took_s)
        log.info("%s is loaded in %.2f s: %s", slot.spec.id, took_s, described)
        if not slot.done.done():
            slot.done.set_result(None)
        self.settle()

    def _fail(self, slot: Slot, reason: str) -> None:
        slot.reason, slot.failed_ns = reason, self._clock.monotonic_ns()
        if not slot.done.done():
            slot.done.set_exception(ApplianceError(reason))

    def _died(self, slot: Slot) -> None:
        weights = weights_of(slot.spec)
        if self.slots.get(weights) is not slot:
            return
        lived_ns = self._clock.monotonic_ns() - slot.began_ns
        before = 0 if lived_ns > HEALTHY_S * NS_PER_S else self._deaths.get(weights, 0)
        self._deaths[weights] = before + 1
        if self._deaths[weights] <= RELOADS_MAX:
            self.begin(slot.spec, size=slot.bytes, restarting=True)
        else:
            self._fail(slot, f"its engine died {RELOADS_MAX + 1} times")

    def _free(self, slot: Slot | None) -> None:
        """Stop a model's engine on another thread; its memory counts until that is done."""
        if slot is None:
            return
        if slot.engine is None:
            slot.gone.set()
            return
        task = asyncio.create_task(asyncio.to_thread(slot.engine.close))
        self._freeing[task] = slot.bytes if slot.takes_memory else 0
        task.add_done_callback(lambda done: self._gone(done, slot))

    def _gone(self, task: "asyncio.Task[None]", slot: Slot) -> None:
        del self._freeing[task]
        slot.gone.set()
        self.settle()


def _heard(future: "asyncio.Future[None]") -> None:
    """Let an error that nobody waits for be: it stands in the slot."""
    if not future.cancelled():
        future.exception()
