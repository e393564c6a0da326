"""Queue: everything that waits for one engine, and which of it comes next.

The order is fair queueing on two levels: the service classes (short realtime, long realtime, batch
tier) share the engine by weight, and the keys of a class share it equally. A flow's start tag is
the work it was given, counted in tokens over its weight; one that was idle begins at the virtual
time, so that idleness earns nothing.

Classes, and the keys with short calls, take turns by their start tags (Goyal, Vin, Cheng:
"Start-time Fair Queuing", SIGCOMM 1996), and the short calls of a key by sequence. Long calls and
those of the batch tier are finished one after the other, that of the least finish tag first
(Parekh, Gallager: "A Generalized Processor Sharing Approach to Flow Control", IEEE/ACM Transactions
on Networking 1993): no call ends later than if all of them advanced together, but for a batch, and
most end much sooner. All advancing together would all end last.

There is no lock here: the engine calls it under its own.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice

from appliance.engine.backend import EngineLimits
from appliance.scheduler.job import Digest, Item, Job, ServiceClass
from appliance.scheduler.packer import Turn, pack

WEIGHTS = {ServiceClass.SHORT: 10, ServiceClass.LONG: 10, ServiceClass.BATCH: 1}
"""Shares of the engine while all classes wait: the batch tier's floor is one in 21 tokens, and more
where it meets one class of realtime calls only. A class that does not use its share leaves it to
the others."""
SHORT_EXPECTED_BATCHES = 64
"""Batches after a short call during which another is expected: a few seconds on a small machine."""
TAGS_MAX = 1_024
"""Keys whose start tags are remembered while they have nothing waiting."""
WEIGHTS_LCM = 10
"""The least common multiple of the weights, so that shares are counted in whole numbers."""


@dataclass(slots=True)
class _KeyQueue:
    """One key's calls of one service class."""

    start_tag: int
    """Tokens that it was given, counted from the virtual time at which it came."""
    jobs: deque[Job] = field(default_factory=deque)
    tokens: int = 0


@dataclass(slots=True)
class _ClassQueue:
    """The keys of one service class; those that have got nothing for longest come first."""

    keys: OrderedDict[str, _KeyQueue] = field(default_factory=OrderedDict)
    tokens: int = 0
    expected: Counter[str] = field(default_factory=Counter)
    """Tokens that calls of each key will have, as soon as their texts are tokenized."""
    virtual_time: int = 0
    """The start tag of a key that had nothing waiting."""
    start_tag: int = 0
    """Tokens over weight that the class was given; the class with the least comes next."""
    tags: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """The start tags of keys that have nothing waiting and are ahead of the virtual time."""

    def tag_of(self, name: str) -> int:
        """Return where a key begins that had nothing waiting; what it was ahead it still is."""
        return max(self.virtual_time, self.tags.pop(name, self.virtual_time))

    def leave(self, name: str) -> None:
        """Take out a key that has nothing waiting."""
        tag = self.keys.pop(name).start_tag
        if tag > self.virtual_time:
            self.tags[name] = tag
        while len(self.tags) > TAGS_MAX or (
            self.tags and next(iter(self.tags.values())) <= self.virtual_time
        ):
            self.tags.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a class beside a call, in tokens."""

    own: int
    """Of its key."""
    before: int
    """What fair turns serve before it ends, beside itself: its key's, and of each other key as much
    at most as its own will have been given."""
    whole: int
    """Of all keys."""
    share: float
    """Of the engine's speed that the class gets."""


class WorkQueue:
    """Jobs with items that are in no batch yet, and every item without a result."""

    def __init__(self) -> None:
        self._classes = {service_class: _ClassQueue() for service_class in ServiceClass}
        self._jobs: dict[Job, None] = {}
        """Those with items that are in no batch yet."""
        self._owed: dict[Job, None] = {}
        """Those that were admitted and have not ended, whatever became of their items."""
        self._virtual_time = 0
        """The start tag of a class that had nothing waiting."""
        self.items: dict[Digest, Item] = {}
        """Items without a result, in a batch or not; jobs with equal sequences share one."""
        self._batches_since_short = SHORT_EXPECTED_BATCHES

    def __len__(self) -> int:
        """Count jobs."""
        return len(self._jobs)

    @property
    def tokens(self) -> int:
        """Return the tokens that are in no batch yet."""
        return sum(class_queue.tokens for class_queue in self._classes.values())

    def expect(self, key: str, service_class: ServiceClass, tokens: int) -> Callable[[], None]:
        """Count tokens in the backlog that a call of a key is about to bring.

        Return what ends that; calling it again does nothing.
        """
        expected = self._classes[service_class].expected
        expected[key] += tokens
        left = [tokens]

        def end() -> None:
            expected[key] -= left.pop() if left else 0
            if not expected[key]:
                del expected[key]

        return end

    def backlog(self, key: str, service_class: ServiceClass, tokens: int) -> Backlog:
        """Return what waits, or is about to, beside a call of a key that has so many tokens."""
        class_queue = self._classes[service_class]
        waiting = class_queue.expected.copy()
        for name, other in class_queue.keys.items():
            waiting[name] += other.tokens
        own = waiting.pop(key, 0)
        before = own + sum(min(others, own + tokens) for others in waiting.values())
        return Backlog(own, before, own + waiting.total(), self._share(service_class))

    def _share(self, service_class: ServiceClass) -> float:
        """Return the share of the engine that a class gets beside those that wait or are expected.

        Short calls come and go: where one was just served, others will be.
        """
        is_short_expected = self._batches_since_short < SHORT_EXPECTED_BATCHES
        beside = sum(
            WEIGHTS[each]
            for each, other in self._classes.items()
            if each is not service_class
            and (other.tokens or (each is ServiceClass.SHORT and is_short_expected))
        )
        return WEIGHTS[service_class] / (WEIGHTS[service_class] + beside)

    def add(self, job: Job) -> None:
        """Queue a job with all of its items."""
        assert job.items
        class_queue = self._classes[job.service_class]
        if not class_queue.tokens:
            class_queue.start_tag = max(class_queue.start_tag, self._virtual_time)
        key = class_queue.keys.get(job.key)
        if key is None:
            key = class_queue.keys[job.key] = _KeyQueue(class_queue.tag_of(job.key))
        key.jobs.append(job)
        job.tokens_queued = sum(map(len, job.items))
        key.tokens += job.tokens_queued
        class_queue.tokens += job.tokens_queued
        self._jobs[job] = None

    def take(self, limits: EngineLimits, *, idle: int) -> list[Item]:
        """Return the next batch; empty if nothing waits that fits `limits`.

        `idle` is the number of backends that compute nothing, the caller's among them: what waits
        is spread over them.
        """
        for job in [job for job in self._jobs if job.cancelled]:
            self.remove(job)
        for each in sorted(ServiceClass, key=lambda each: (self._classes[each].start_tag, each)):
            class_queue = self._classes[each]
            bounded = split_evenly(class_queue.tokens, self._bounded(each, limits), idle)
            if items := self._take(each, bounded):
                self._virtual_time = max(self._virtual_time, class_queue.start_tag)
                class_queue.start_tag += sum(map(len, items)) * WEIGHTS_LCM // WEIGHTS[each]
                is_short = each is ServiceClass.SHORT
                self._batches_since_short = 0 if is_short else self._batches_since_short + 1
                return items
        return []

    def _bounded(self, service_class: ServiceClass, limits: EngineLimits) -> EngineLimits:
        """Halve the batches of long calls while short ones come: that is what these wait for."""
        is_short = service_class is ServiceClass.SHORT
        if is_short or self._batches_since_short >= SHORT_EXPECTED_BATCHES:
            return limits
        return replace(limits, max_batch_tokens=max(1, limits.max_batch_tokens // 2))

    def remove(self, job: Job) -> None:
        """Take out what is left of a job that is over, except for items that other jobs share."""
        if job not in self._jobs:
            return
        del self._jobs[job]
        class_queue = self._classes[job.service_class]
        key = class_queue.keys[job.key]
        key.jobs.remove(job)
        if not key.jobs:
            class_queue.leave(job.key)
        key.tokens -= job.tokens_queued
        class_queue.tokens -= job.tokens_queued
        job.tokens_queued = 0
        while job.items:
            item = job.items.popleft()
            next_waiter = item.first_live_waiter
            if next_waiter is None:
                self.drop(item)
            else:
                self.requeue(item, next_waiter)

    def drop(self, item: Item) -> None:
        """Forget an item that is in no batch, and those of its jobs that are over."""
        self.items.pop(item.digest, None)
        for job, _ in item.waiters:
            if job.is_over:
                self._owed.pop(job, None)

    def admit(self, job: Job) -> None:
        """Take note that a job is to be ended: by `release`, or by `clear`."""
        self._owed[job] = None

    def release(self, job: Job) -> bool:
        """Return whether the job has not ended yet; the caller ends it then."""
        return self._owed.pop(job, job) is None

    def withdraw(self, job: Job) -> None:
        """Take a job back whose items were found only in part; no other job waits for its own."""
        job.failed = True
        self._owed.pop(job, None)
        for item in job.items:
            del self.items[item.digest]
        job.items.clear()

    def clear(self) -> list[Job]:
        """Forget everything; return the jobs that have not ended, for the caller to end."""
        jobs = list(self._owed)
        self._owed.clear()
        self.items.clear()
        self._jobs.clear()
        self._classes = {service_class: _ClassQueue() for service_class in ServiceClass}
        return jobs

    def requeue(self, item: Item, next_waiter: Job) -> None:
        """Queue an item with another of its jobs."""
        next_waiter.items.append(item)
        if next_waiter in self._jobs:
            class_queue = self._classes[next_waiter.service_class]
            next_waiter.tokens_queued += len(item)
            class_queue.tokens += len(item)
            class_queue.keys[next_waiter.key].tokens += len(item)
        else:
            self.add(next_waiter)

    def _take(self, service_class: ServiceClass, limits: EngineLimits) -> list[Item]:
        class_queue = self._classes[service_class]
        most, is_short = limits.sequences_max, service_class is ServiceClass.SHORT
        names = list(islice(class_queue.keys, most))
        if not names:
            return []
        # Enough calls to fill the batch, without looking at 64 texts of 64 calls of 64 keys.
        calls = max(1, 2 * most // len(names))
        fronts = [list(islice(class_queue.keys[name].jobs, calls)) for name in names]
        turns = [
            Turn(
                class_queue.keys[name].start_tag,
                [[len(item) for item in islice(job.items, most)] for job in front],
                None if is_short else [job.tokens_queued for job in front],
            )
            for name, front in zip(names, fronts, strict=True)
        ]
        lowest, keys = min(turn.start_tag for turn in turns), len(class_queue.keys)
        items: list[Item] = []
        served: dict[Job, None] = {}
        for index, job in pack(turns, limits):
            chosen = fronts[index][job]
            items.append(chosen.items.popleft())
            chosen.tokens_queued -= len(items[-1])
            class_queue.keys[names[index]].tokens -= len(items[-1])
            served.pop(chosen, None)  # those served last are last in the next batch
            served[chosen] = None
        tokens = sum(map(len, items))
        class_queue.tokens -= tokens
        if is_short:
            class_queue.virtual_time = max(class_queue.virtual_time, lowest)
        else:
            class_queue.virtual_time += tokens // keys
        for name, turn in zip(names, turns, strict=True):
            class_queue.keys[name].start_tag = turn.start_tag
        for done in served:
            self._to_the_back(class_queue, done)
        return items

    def _to_the_back(self, class_queue: _ClassQueue, job: Job) -> None:
        """Move a short job that is in the batch behind the others, and its key too.

        A job that is done is taken out. A key whose long job is not done stays where it is.
        """
        key = class_queue.keys[job.key]
        if not job.items:
            key.jobs.remove(job)
            del self._jobs[job]
        elif job.service_class is ServiceClass.SHORT:
            key.jobs.remove(job)
            key.jobs.append(job)
        else:
            return
        if key.jobs:
            class_queue.keys.move_to_end(job.key)
        else:
            class_queue.leave(job.key)


SPLIT_TOKENS = 64
"""Tokens below which a batch is not split: each call of the engine costs about as much as 30 tokens
of a small model."""


def split_evenly(tokens: int, limits: EngineLimits, idle: int) -> EngineLimits:
    """Return limits under which `idle` backends get equal parts of what waits."""
    part = -(-tokens // max(1, idle))
    if part >= limits.max_batch_tokens:
        return limits
    return replace(limits, max_batch_tokens=min(limits.max_batch_tokens, max(part, SPLIT_TOKENS)))
