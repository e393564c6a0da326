"""Queue: everything that waits for one engine, and whose turn it is.

Owns the order: short realtime calls, long realtime calls and the batch tier share the engine by
weight; within each, keys take turns by tokens, and a key's calls by sequence. Deliberately has no
lock: the engine's guards it.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from itertools import islice

from appliance.engine.backend import EngineLimits
from appliance.scheduler.job import Digest, Item, Job, Kind
from appliance.scheduler.packer import Turn, pack

WEIGHTS = {Kind.SHORT: 10, Kind.LONG: 10, Kind.BATCH: 1}
"""Shares of the engine while all kinds wait: the batch tier's floor is one in 21 tokens, and more
where it meets one kind of realtime calls only. A kind that does not use its share leaves it to the
others."""
SHORT_IS_NEAR = 64
"""Bins after a short call during which another is expected: a few seconds on a small machine."""
SHARES = 10
"""The least common multiple of the weights, so that shares are counted in whole numbers."""


@dataclass(slots=True)
class _Key:
    """One key's calls of one kind."""

    served: int
    """Tokens it was given, counted from where the line was when it came."""
    jobs: deque[Job] = field(default_factory=deque)


@dataclass(slots=True)
class _Line:
    """The keys of one kind, those that got nothing longest first."""

    keys: OrderedDict[str, _Key] = field(default_factory=OrderedDict)
    tokens: int = 0
    level: int = 0
    """Where a key begins that has nothing waiting yet: it saved nothing up."""
    served: int = 0
    """Tokens over weight since the beginning: the kind that is behind comes next."""


class WorkQueue:
    """Jobs with items that are in no bin yet, and every item without a result."""

    def __init__(self) -> None:
        self._lines = {kind: _Line() for kind in Kind}
        self._jobs: dict[Job, None] = {}
        self._level = 0
        """Where a kind begins that had nothing waiting."""
        self.items: dict[Digest, Item] = {}
        """Items without a result, in a bin or not: who wants the same takes the same."""
        self._bins_since_short = SHORT_IS_NEAR

    def __len__(self) -> int:
        """Count jobs."""
        return len(self._jobs)

    @property
    def tokens(self) -> int:
        """Return the tokens that are in no bin yet."""
        return sum(line.tokens for line in self._lines.values())

    def add(self, job: Job) -> None:
        """Queue a job with all of its items."""
        assert job.items
        line = self._lines[job.kind]
        if not line.tokens:
            line.served = max(line.served, self._level)
        line.keys.setdefault(job.key, _Key(line.level)).jobs.append(job)
        line.tokens += sum(map(len, job.items))
        self._jobs[job] = None

    def take(self, limits: EngineLimits, *, idle: int) -> list[Item]:
        """Return the next bin; empty if nothing waits that fits `limits`.

        `idle` backends, this one among them, compute nothing: what waits is spread over them.
        """
        for job in [job for job in self._jobs if job.cancelled]:
            self.remove(job)
        for kind in sorted(Kind, key=lambda kind: (self._lines[kind].served, kind)):
            line = self._lines[kind]
            if items := self._take(line, shared(line.tokens, self._bounded(kind, limits), idle)):
                self._level = max(self._level, line.served)
                line.served += sum(map(len, items)) * SHARES // WEIGHTS[kind]
                self._bins_since_short = 0 if kind is Kind.SHORT else self._bins_since_short + 1
                return items
        return []

    def _bounded(self, kind: Kind, limits: EngineLimits) -> EngineLimits:
        """Halve the bins of long calls while short ones come: that is what these wait for."""
        if kind is Kind.SHORT or self._bins_since_short >= SHORT_IS_NEAR:
            return limits
        return replace(limits, bin_tokens=max(1, limits.bin_tokens // 2))

    def remove(self, job: Job) -> None:
        """Take out what is left of a job that is over, except for what others want too."""
        if job not in self._jobs:
            return
        del self._jobs[job]
        line = self._lines[job.kind]
        key = line.keys[job.key]
        key.jobs.remove(job)
        if not key.jobs:
            del line.keys[job.key]
        line.tokens -= sum(map(len, job.items))
        while job.items:
            item = job.items.popleft()
            heir = item.live
            if heir is None:
                del self.items[item.digest]
            else:
                self.put_back(item, heir)

    def clear(self) -> set[Job]:
        """Forget everything; return the jobs that waited for something."""
        jobs = {job for item in self.items.values() for job, _ in item.takers}
        self.items.clear()
        self._jobs.clear()
        self._lines = {kind: _Line() for kind in Kind}
        return jobs

    def put_back(self, item: Item, heir: Job) -> None:
        """Let another job that wants an item bring it."""
        heir.items.append(item)
        if heir in self._jobs:
            self._lines[heir.kind].tokens += len(item)
        else:
            self.add(heir)

    def _take(self, line: _Line, limits: EngineLimits) -> list[Item]:
        most = limits.sequences_max
        names = list(islice(line.keys, most))
        if not names:
            return []
        # Enough calls to fill the bin, without looking at 64 texts of 64 calls of 64 keys.
        calls = max(1, 2 * most // len(names))
        fronts = [list(islice(line.keys[name].jobs, calls)) for name in names]
        turns = [
            Turn(
                line.keys[name].served,
                [[len(item) for item in islice(job.items, most)] for job in front],
            )
            for name, front in zip(names, fronts, strict=True)
        ]
        line.level = max(line.level, min(turn.served for turn in turns))
        items: list[Item] = []
        served: dict[Job, None] = {}
        for index, job in pack(turns, limits):
            chosen = fronts[index][job]
            items.append(chosen.items.popleft())
            served.pop(chosen, None)  # those served last are last in the next bin
            served[chosen] = None
        line.tokens -= sum(map(len, items))
        for name, turn in zip(names, turns, strict=True):
            line.keys[name].served = turn.served
        for done in served:
            self._to_the_back(line, done)
        return items

    def _to_the_back(self, line: _Line, job: Job) -> None:
        """Move a job that got something, or out: the next bin begins with those that did not."""
        key = line.keys[job.key]
        key.jobs.remove(job)
        if job.items:
            key.jobs.append(job)
        else:
            del self._jobs[job]
        if key.jobs:
            line.keys.move_to_end(job.key)
        else:
            del line.keys[job.key]


SPLIT_TOKENS = 64
"""Less than this is not split: a call of the engine costs about as much as 30 tokens of a small
model."""


def shared(tokens: int, limits: EngineLimits, idle: int) -> EngineLimits:
    """Return limits under which `idle` backends get equal parts of what waits."""
    part = -(-tokens // max(1, idle))
    if part >= limits.bin_tokens:
        return limits
    return replace(limits, bin_tokens=min(limits.bin_tokens, max(part, SPLIT_TOKENS)))
