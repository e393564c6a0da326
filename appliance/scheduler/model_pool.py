"""Model pool: the models in memory, those being tried or loaded, and those being freed.

Owns one engine for each file of weights, how many load at once, and the memory that all may take: a
model that needs room waits until the least recently called ones are evicted. A leased model is
never evicted. Weights that no model of the catalogue names any more go as soon as they may.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext

from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import ApplianceError, Draining, ModelWarming, TrialUnfinished
from appliance.core.limits import Limits
from appliance.engine.loader import LoadedModel, Loader
from appliance.engine.screening import Screening
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.engine import Engine
from appliance.scheduler.eviction import Resident, choose_evictions
from appliance.scheduler.lease import Leases
from appliance.scheduler.load_times import LoadTimes
from appliance.scheduler.pool_entry import PoolEntry, WeightsKey, weights_key

log = logging.getLogger("gigarouter.residency")

NS_PER_S = 1_000_000_000
TRY_AGAIN_S = 30
"""How long calls are refused with a failed load's reason; the next call loads again."""
DEATHS_MAX = 2
DEATHS_WITHIN_S = 600
"""So many deaths of its engine in so many seconds set a model aside until it is loaded or tried."""
GRACE_S = 3.0
"""A model is not evicted sooner after its load: calls that were told to retry must find it."""
LOADING_MAX = 2
"""Models that are read from the disk at once."""


class ModelPool:
    """Entries by file of weights; call on the loop's thread."""

    def __init__(
        self,
        loader: Loader,
        *,
        clock: Clock,
        limits: Limits,
        cache: VectorCache,
        memory_bytes: int | None,
        times: LoadTimes,
        screening: Screening | None,
        on_unused: Callable[[WeightsKey], None],
    ) -> None:
        """Prepare; without `screening` every file counts as tried.

        `on_unused` is called when the last lease on a model has ended.
        """
        self._on_unused = on_unused
        self._loader = loader
        self._clock = clock
        self._limits = limits
        self._cache = cache
        self.memory_bytes = memory_bytes
        """What all models together may take; None: whatever they need."""
        self.times = times
        self._screening = screening
        self.entries: dict[WeightsKey, PoolEntry] = {}
        self.leases = Leases(self._unused)
        """Calls that compute with each model, or wait for it."""
        self.pinned: set[WeightsKey] = set()
        self._deaths: dict[WeightsKey, list[int]] = {}
        """When a model's engine died, in nanoseconds: at most `DEATHS_MAX` times of each model."""
        self._freeing: dict[asyncio.Task[None], int] = {}
        """Engines on their way out, and the memory that each still takes."""
        self._named: set[WeightsKey] | None = None
        """What the catalogue's models compute with; None: it was not said."""
        self._draining = False
        self._again: asyncio.TimerHandle | None = None
        self._closing = False

    def __repr__(self) -> str:
        """Say how much memory is taken."""
        return f"<ModelPool [{len(self.entries)} entries | {self.taken_bytes // 1_000_000} MB]>"

    @property
    def taken_bytes(self) -> int:
        """Return the memory that models take now, those included that come or go."""
        here = (entry.bytes for entry in self.entries.values() if entry.takes_memory)
        return sum(here) + self.freeing_bytes

    @property
    def freeing_bytes(self) -> int:
        """Return the memory that models on their way out still take."""
        return sum(self._freeing.values())

    def begin(self, spec: ModelSpec, *, size: int, restarting: bool = False) -> PoolEntry:
        """Queue a model to be loaded; it replaces the model's former entry."""
        weights = weights_key(spec)
        self._free(self.entries.pop(weights, None))
        loop = asyncio.get_running_loop()
        entry = self.entries[weights] = PoolEntry(
            spec=spec,
            bytes=size,
            began_ns=self._clock.monotonic_ns(),
            expected_s=self.times.expected_s(spec),
            restarting=restarting,
            done=loop.create_future(),
            tried=loop.create_future(),
        )
        entry.done.add_done_callback(_retrieve)
        entry.tried.add_done_callback(_retrieve)
        self._try(entry)
        self.reconcile()
        return entry

    def is_tried(self, spec: ModelSpec) -> bool:
        """Say whether a file needs no trial any more, or none at all."""
        return self._screening is None or self._screening.is_tried(spec)

    def keep_only(self, specs: Iterable[ModelSpec]) -> None:
        """Let the weights go that no model of a new catalogue names; leases on them end first.

        A pin is a model's: it goes over to the file that is the model's now.
        """
        named = {weights_key(spec): spec.id for spec in specs}
        by_id = {spec_id: weights for weights, spec_id in named.items()}
        for weights, entry in self.entries.items():
            if weights in named:
                continue
            log.info("the file of %s was replaced or removed: it is freed", entry.spec.id)
            if weights in self.pinned and entry.spec.id in by_id:
                self.pinned.add(by_id[entry.spec.id])
            self.leave(entry)
        self.pinned &= named.keys()
        self._deaths = {key: died for key, died in self._deaths.items() if key in named}
        self._named = set(named)
        self.reconcile()

    def leave(self, entry: PoolEntry) -> None:
        """Mark an entry, so that it is freed when the last lease on it ends."""
        entry.leaving = True
        entry.progress.cancel()
        if entry.trial is not None:
            entry.trial.cancel()

    def drain(self) -> None:
        """End every trial, and the wait of those that wait for one; begin none any more."""
        self._draining = True
        for entry in self.entries.values():
            if entry.trial is not None:
                self._end(entry, Draining())
                entry.trial.cancel()

    def reconcile(self) -> None:
        """Free entries that are marked and unused; load those that wait and fit."""
        for weights, entry in list(self.entries.items()):
            if entry.leaving and not self.leases.count(weights):
                del self.entries[weights]
                self._free(entry)
        if self._closing:
            return
        for entry in [entry for entry in self.entries.values() if entry.state == "waiting"]:
            if not self._admit(entry) and self._is_wanted(entry):
                break  # first come, first served: a small model must not starve a large one

    def _try(self, entry: PoolEntry) -> None:
        """Have a file tried that nobody has tried yet; the load comes after that."""
        if self._screening is None or self._screening.is_tried(entry.spec):
            entry.tried.set_result(None)
            return
        if self._draining:
            self._end(entry, Draining())
            return
        try:
            entry.trial = self._screening.begin(entry.spec)
        except (ApplianceError, RuntimeError) as error:  # or the system gives no thread
            self._fail(entry, str(error))
            return
        tried = asyncio.wrap_future(entry.trial.done)
        tried.add_done_callback(lambda done: self._tried(entry, done))

    def _tried(self, entry: PoolEntry, done: "asyncio.Future[None]") -> None:
        trial, entry.trial = entry.trial, None
        was_cancelled = done.cancelled() or isinstance(done.exception(), TrialUnfinished)
        error = None if done.cancelled() else done.exception()
        if entry.leaving and was_cancelled:
            self._end(entry, ModelWarming(model=entry.spec.id, retry_after_s=1, doing="unloaded"))
        elif done.cancelled():
            self._fail(entry, "its trial was cancelled; try again")
        elif error is not None:
            reason = error.message if isinstance(error, ApplianceError) else repr(error)
            log.error("%s could not be tried: %s", entry.spec.id, reason)
            self._fail(entry, reason)
        elif not entry.tried.done():
            assert trial is not None
            entry.bytes = max(entry.bytes, trial.trial.model_bytes)
            entry.began_ns = self._clock.monotonic_ns()
            entry.tried.set_result(None)
        self.reconcile()

    def _is_wanted(self, entry: PoolEntry) -> bool:
        """Say whether a call still waits for a model."""
        return bool(entry.waiters or self.leases.count(weights_key(entry.spec)))

    def may_go(self, entry: PoolEntry) -> bool:
        """Say whether a model can be evicted now."""
        weights = weights_key(entry.spec)
        since_ns = self._clock.monotonic_ns() - entry.ready_ns
        has_come = entry.ready_ns > 0 and since_ns > GRACE_S * NS_PER_S
        is_busy = bool(self.leases.count(weights)) or weights in self.pinned
        return entry.state == "loaded" and has_come and not is_busy

    def may_try_again(self, entry: PoolEntry) -> bool:
        """Say whether a load failed long enough ago: memory may be free, a disk be back."""
        since_ns = self._clock.monotonic_ns() - entry.failed_ns
        is_over = since_ns > TRY_AGAIN_S * NS_PER_S
        return bool(entry.reason) and not entry.is_set_aside and is_over

    def forgive(self, spec: ModelSpec) -> None:
        """Forget that a model's engine died; one that was set aside is loaded at its next call."""
        weights = weights_key(spec)
        self._deaths.pop(weights, None)
        entry = self.entries.get(weights)
        if entry is not None and entry.is_set_aside:
            del self.entries[weights]
            self._free(entry)

    async def close(self) -> None:
        """Free every model that is not leased; the process's end frees the others."""
        self._closing = True
        self.drain()
        if self._again is not None:
            self._again.cancel()
        for weights, entry in list(self.entries.items()):
            if self.leases.count(weights):
                log.warning("%s is still in use: it is not freed", entry.spec.id)
                continue
            del self.entries[weights]
            self._free(entry)
        while self._freeing:
            await asyncio.wait(self._freeing)

    def _unused(self, weights: WeightsKey) -> None:
        """Note that the last lease on a model has ended."""
        entry = self.entries.get(weights)
        if entry is not None:
            entry.used_ns = self._clock.monotonic_ns()
            if self._named is not None and weights not in self._named:
                self.leave(entry)  # a call that came before the catalogue changed had it loaded
        self._on_unused(weights)
        self.reconcile()

    def _admit(self, entry: PoolEntry) -> bool:
        """Load a model that waits, if it may be; say whether the next may be looked at."""
        if sum(each.state == "loading" for each in self.entries.values()) >= LOADING_MAX:
            return False
        budget = self.memory_bytes
        if budget is None or self.taken_bytes + entry.bytes <= budget:
            self._load(entry)
            return True
        pinned = sum(
            each.bytes
            for weights, each in self.entries.items()
            if weights in self.pinned and each.takes_memory
        )
        if entry.bytes + pinned > budget:
            besides = f", of which pinned ones take {pinned // 1_000_000:,} MB" if pinned else ""
            self._fail(
                entry,
                f"it needs {entry.bytes // 1_000_000:,} MB of memory, and all models together may "
                f"take {budget // 1_000_000:,} MB (memory_mb){besides}",
            )
            return True
        self._make_room(entry, budget)
        return False

    def _make_room(self, entry: PoolEntry, budget: int) -> None:
        residents = [
            Resident(weights, each.bytes, each.used_ns, self.may_go(each))
            for weights, each in self.entries.items()
            if each.takes_memory and not each.leaving
        ]
        # Memory that is being freed counts as free.
        need = entry.bytes + sum(resident.bytes for resident in residents) - budget
        chosen = choose_evictions(residents, need=need)
        for weights in chosen or ():
            log.info("%s makes room for %s", self.entries[weights].spec.id, entry.spec.id)
            self._free(self.entries.pop(weights))
        if chosen is None and self._again is None:
            # All of them are leased, pinned, or in their grace period.
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(GRACE_S / 4, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self.reconcile()

    def _load(self, entry: PoolEntry) -> None:
        spec = entry.spec
        entry.began_ns = self._clock.monotonic_ns()
        try:
            entry.engine = Engine(
                spec.id,
                lambda: self._open(spec, entry),
                clock=self._clock,
                queue_tokens_max=self._limits.queue_tokens_max,
                on_death=lambda: self._died(entry),
                cache=self._cache,
                marker=self._screening.marker if self._screening else None,
            )
        except (RuntimeError, MemoryError) as error:  # the system gives no thread, or no memory
            log.error("%s cannot be loaded: %s", spec.id, error)  # noqa: TRY400 - it says enough
            self._fail(entry, f"no worker could be started: {error}")
            return
        entry.engine.loaded.add_done_callback(lambda future: self._loaded(entry, future))

    def _open(self, spec: ModelSpec, entry: PoolEntry) -> LoadedModel:
        """Read the weights; on a worker's thread."""
        marker = self._screening.marker if self._screening else None
        with marker.loading(spec.id) if marker else nullcontext():
            return self._loader.open_model(spec, entry.progress)

    def _loaded(self, entry: PoolEntry, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            reason = error.message if isinstance(error, ApplianceError) else repr(error)
            log.error("%s could not be loaded: %s", entry.spec.id, reason)
            self._fail(entry, reason)
            self.reconcile()
            return
        assert entry.engine is not None
        assert entry.engine.model is not None
        described = entry.engine.model.weights.facts.description
        entry.ready_ns = entry.used_ns = self._clock.monotonic_ns()
        took_s = (entry.ready_ns - entry.began_ns) / NS_PER_S
        self.times.learn(entry.spec, took_s)
        log.info("%s is loaded in %.2f s: %s", entry.spec.id, took_s, described)
        if not entry.done.done():
            entry.done.set_result(None)
        self.reconcile()

    def _fail(self, entry: PoolEntry, reason: str) -> None:
        entry.reason, entry.failed_ns = reason, self._clock.monotonic_ns()
        self._end(entry, ApplianceError(reason))

    def _end(self, entry: PoolEntry, error: ApplianceError) -> None:
        """Tell those that wait for an entry why they wait in vain."""
        for future in (entry.tried, entry.done):
            if not future.done():
                future.set_exception(error)

    def _died(self, entry: PoolEntry) -> None:
        weights = weights_key(entry.spec)
        if self.entries.get(weights) is not entry:
            return
        if entry.leaving:
            self.reconcile()
            return
        now_ns = self._clock.monotonic_ns()
        since_ns = now_ns - DEATHS_WITHIN_S * NS_PER_S
        deaths = [died for died in self._deaths.get(weights, []) if died > since_ns]
        self._deaths[weights] = [*deaths, now_ns]
        if len(deaths) + 1 < DEATHS_MAX:
            self.begin(entry.spec, size=entry.bytes, restarting=True)
            return
        entry.is_set_aside = True
        last = entry.engine.death if entry.engine is not None else None
        reason = (
            f"set aside, because its engine died {len(deaths) + 1} times within "
            f"{DEATHS_WITHIN_S // 60} minutes{f' ({last})' if last else ''}; "
            f"gigarouter models load {entry.spec.id} loads it again"
        )
        log.error("%s is %s", entry.spec.id, reason)
        self._fail(entry, reason)

    def _free(self, entry: PoolEntry | None) -> None:
        """Stop a model's engine on another thread; its memory counts until that is done."""
        if entry is None:
            return
        if entry.trial is not None:
            entry.trial.cancel()
        entry.progress.cancel()
        if entry.engine is None:
            entry.gone.set()
            return
        task = asyncio.create_task(asyncio.to_thread(entry.engine.close))
        self._freeing[task] = entry.bytes if entry.takes_memory else 0
        task.add_done_callback(lambda done: self._gone(done, entry))

    def _gone(self, task: "asyncio.Task[None]", entry: PoolEntry) -> None:
        del self._freeing[task]
        entry.gone.set()
        self.reconcile()


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Retrieve an error that no caller waits for: the entry keeps it."""
    if not future.cancelled():
        future.exception()
