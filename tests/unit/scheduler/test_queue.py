"""The queue alone: what it holds, whose turn it is, and its books, through any history."""

import asyncio
import os
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from appliance.engine.backend import EngineLimits
from appliance.scheduler.job import Item, Job, Kind, digest_of
from appliance.scheduler.queue import SPLIT_TOKENS, WorkQueue, shared
from appliance.tasks.sequence import TokenSequence

LIMITS = EngineLimits(ubatch_tokens_max=512, bin_tokens=256, sequences_max=64)
RUNS = int(os.environ.get("MODEL_RUNS", "40"))


def sequence(token, length):
    return TokenSequence(np.full(length, token, np.int32), length, truncated=False)


class Desk:
    """Does to a queue what an engine does, without lanes."""

    def __init__(self):
        self.queue = WorkQueue()
        self.loop = asyncio.new_event_loop()
        self.next_token = 0
        self.names = {}
        """The name of each job."""

    def close(self):
        self.loop.close()

    async def _job(self, count, key, kind):
        return Job(count, width=1, key=key, kind=kind, now_ns=0)

    def add(self, sequences, *, key="k", kind=Kind.LONG):
        """Queue sequences as the engine does: equal ones are one item."""
        job = self.loop.run_until_complete(self._job(len(sequences), key, kind))
        for row, each in enumerate(sequences):
            item = self.queue.items.get(digest_of(each))
            if item is None:
                item = Item(each, digest_of(each), [])
                self.queue.items[item.digest] = item
                job.items.append(item)
            item.takers.append((job, row))
        if job.items:
            self.queue.add(job)
        return job

    def fill(self, count, length, *, key="k", kind=Kind.LONG):
        """Queue texts that differ from all before."""
        first, self.next_token = self.next_token, self.next_token + count
        return self.add([sequence(first + n, length) for n in range(count)], key=key, kind=kind)

    def take(self, *, limits=LIMITS, idle=1):
        return self.queue.take(limits, idle=idle)

    def settle(self, items):
        """Give every taker of a bin its row."""
        ended = []
        for item in items:
            del self.queue.items[item.digest]
            for job, row in item.takers:
                if job.put(row, np.zeros(1, np.float32)):
                    ended.append(job)
        return ended

    def compute(self, **options):
        items = self.take(**options)
        self.settle(items)
        return items


@pytest.fixture
def desk():
    made = Desk()
    yield made
    made.close()


def owner(item):
    return item.takers[0][0]


def served(items):
    """Tokens by key."""
    found = Counter()
    for item in items:
        found[owner(item).key] += len(item)
    return found


# -- whose turn it is ---------------------------------------------------------------------------


loads = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 512)), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from("abcdef"), loads, min_size=1), st.integers(1, 64))
@settings(deadline=None)
def test_bin_after_bin_everything_is_computed_once_and_each_call_in_order(calls, sequences_max):
    limits = EngineLimits(512, 256, sequences_max)
    desk = Desk()
    jobs = [
        desk.fill(count, length, key=key) for key, each in calls.items() for count, length in each
    ]
    given_items = {job: list(job.items) for job in jobs}
    got = defaultdict(list)
    while items := desk.compute(limits=limits):
        tokens = sum(map(len, items))
        assert tokens <= limits.bin_tokens or len(items) == 1
        assert len(items) <= sequences_max
        for item in items:
            got[owner(item)].append(item)
    assert got == given_items
    assert all(job.left == 0 for job in jobs)
    assert len(desk.queue) == desk.queue.tokens == 0
    assert desk.queue.items == {}
    desk.close()


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_keys_that_always_wait_get_equal_tokens_within_a_bin_and_a_text(data):
    bin_tokens = data.draw(st.sampled_from([64, 256]))
    limits = EngineLimits(512, bin_tokens, 64)
    keys = data.draw(st.integers(2, 5))
    lengths = [
        data.draw(st.lists(st.integers(1, 512), min_size=1, max_size=4)) for _ in range(keys)
    ]
    calls = [data.draw(st.integers(1, 4)) for _ in range(keys)]
    desk = Desk()
    for index in range(keys):
        for _ in range(calls[index]):
            desk.add(
                [
                    sequence(desk.next_token + n, lengths[index][n % len(lengths[index])])
                    for n in range(240 // calls[index])
                ],
                key=str(index),
            )
            desk.next_token += 240
    found = Counter({str(index): 0 for index in range(keys)})
    longest = max(map(max, lengths))
    lines = desk.queue._lines[Kind.LONG].keys
    while len(lines) == keys:
        found += served(desk.compute(limits=limits))
        if len(lines) == keys:
            spread = max(found.values()) - min(found[str(index)] for index in range(keys))
            assert spread <= bin_tokens + longest + 32
    desk.close()


def test_a_key_owes_nothing_for_what_it_was_given_while_it_was_alone(desk):
    alone = desk.fill(400, 200, key="a")
    for _ in range(300):
        desk.compute()
    assert len(alone.items) == 100
    desk.fill(2000, 10, key="a")
    desk.fill(2000, 10, key="b")
    found = Counter()
    for _ in range(60):
        found += served(desk.compute())
    assert abs(found["a"] - found["b"]) <= 256 + 200


def test_calls_of_one_key_take_turns_by_text(desk):
    one, two, three = (desk.fill(100, 80) for _ in range(3))
    for _ in range(20):
        desk.compute()
    lefts = [len(job.items) for job in (one, two, three)]
    assert max(lefts) - min(lefts) <= 1


@pytest.mark.parametrize(
    ("alone", "saturated", "bins"),
    [
        pytest.param(Kind.SHORT, Kind.LONG, 4, id="short calls beside long ones"),
        pytest.param(Kind.LONG, Kind.SHORT, 2, id="long calls beside short ones"),
        pytest.param(Kind.BATCH, Kind.LONG, 12, id="the batch tier beside realtime"),
        pytest.param(Kind.LONG, Kind.BATCH, 2, id="realtime beside the batch tier"),
    ],
)
def test_what_a_kind_was_given_while_it_was_alone_is_not_held_against_it(
    desk, alone, saturated, bins
):
    for _ in range(1000):
        desk.fill(1, 250, kind=alone)
        desk.compute()
    assert desk.queue.tokens == 0
    desk.fill(10_000, 10, key="other", kind=saturated)
    desk.compute()
    job = desk.fill(1, 10, key="late", kind=alone)
    for _ in range(bins):
        desk.compute()
    assert job.left == 0


@pytest.mark.parametrize("kind", [Kind.SHORT, Kind.LONG])
def test_kinds_never_share_a_bin(desk, kind):
    for _ in range(5):
        desk.fill(3, 10, kind=kind)
        desk.fill(3, 10, kind=Kind.BATCH)
    while items := desk.compute():
        assert len({owner(item).kind for item in items}) == 1


# -- spreading ----------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 64), st.integers(1, 512), st.integers(0, 511))
def test_what_waits_is_parted_evenly_and_never_beyond_the_limits(tokens, idle, bin_tokens, more):
    limits = EngineLimits(bin_tokens + more, bin_tokens, 64)
    found = shared(tokens, limits, idle)
    assert found.bin_tokens <= limits.bin_tokens
    assert found.bin_tokens * idle >= min(tokens, idle * limits.bin_tokens)
    assert found.bin_tokens >= min(SPLIT_TOKENS, bin_tokens)
    assert (found.ubatch_tokens_max, found.sequences_max) == (bin_tokens + more, 64)


# -- leaving ------------------------------------------------------------------------------------


def test_the_tokens_of_a_cancelled_call_leave_the_queue(desk):
    leaves, stays = desk.fill(10, 10, key="a"), desk.fill(10, 7, key="b")
    leaves.cancelled = True
    items = desk.take()
    assert {owner(item) for item in items} == {stays}
    assert (len(desk.queue), desk.queue.tokens) == (0, 0)


def test_texts_that_two_calls_want_stay_when_the_first_one_leaves(desk):
    same = [sequence(token, 10) for token in range(5)]
    leaves, stays = desk.add(same, key="a"), desk.add(same, key="b")
    assert (len(desk.queue), desk.queue.tokens) == (1, 50)
    leaves.cancelled = True
    assert len(desk.compute()) == 5
    assert stays.left == 0
    assert desk.queue.items == {}


def test_an_heir_of_another_kind_takes_them_into_its_own_line(desk):
    same = [sequence(token, 10) for token in range(5)]
    leaves = desk.add(same, key="a", kind=Kind.BATCH)
    stays = desk.add(same, key="b", kind=Kind.SHORT)
    leaves.cancelled = True
    desk.fill(100, 10, kind=Kind.LONG)
    bins = [desk.compute(), desk.compute()]
    assert stays.left == 0
    assert [owner(bins[0][0]), owner(bins[1][0])].count(leaves) == 1
    lines = desk.queue._lines
    assert lines[Kind.BATCH].tokens == lines[Kind.SHORT].tokens == 0


def test_forgetting_everything_names_everyone_who_waited(desk):
    one = desk.fill(100, 10)
    two = desk.add([each.sequence for each in list(one.items)[:3]], key="other")
    assert desk.take()
    assert desk.queue.clear() == {one, two}
    assert (len(desk.queue), desk.queue.tokens, desk.queue.items) == (0, 0, {})


# -- quickness ----------------------------------------------------------------------------------


def quickest(action):
    """Return the least seconds that it takes: neighbours only ever add to them."""
    found = []
    for _ in range(5):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return min(found)


def test_a_bin_is_chosen_quickly_from_64_keys_with_texts_of_any_length(desk):
    limits = EngineLimits(8192, 256, 64)
    random = np.random.default_rng(1)
    for key in range(64):
        for _ in range(4):
            lengths = random.choice([5, 50, 500, 8192], 40)
            first, desk.next_token = desk.next_token, desk.next_token + 40
            desk.add(
                [sequence(first + n, int(length)) for n, length in enumerate(lengths)],
                key=str(key),
            )
    for _ in range(200):
        desk.compute(limits=limits)
    assert quickest(lambda: desk.compute(limits=limits)) < 0.02


def test_a_bin_is_chosen_quickly_from_many_calls_of_many_keys(desk):
    for key in range(64):
        for _ in range(64):
            desk.fill(32, 8, key=str(key))
    assert quickest(desk.compute) < 0.02


# -- any history --------------------------------------------------------------------------------


class History(RuleBasedStateMachine):
    """Calls come, leave, fail and are computed, as an engine would tell the queue."""

    def __init__(self):
        super().__init__()
        self.desk = Desk()
        self.queue = self.desk.queue
        self.jobs = []
        self.bins = []
        self.taken = Counter()
        self.put = {}

    def teardown(self):
        self.drain()
        self.desk.close()

    def waiting(self):
        """Every item that is in no bin."""
        return [item for job in self.queue._jobs for item in job.items]

    @rule(
        tokens=st.lists(st.integers(0, 12), min_size=1, max_size=8),
        key=st.sampled_from("abc"),
        kind=st.sampled_from(Kind),
    )
    def come(self, tokens, key, kind):
        lengths = (10, 300, 60, 5)
        self.jobs.append(
            self.desk.add(
                [sequence(token, lengths[token % 4]) for token in tokens], key=key, kind=kind
            )
        )

    @rule(
        idle=st.integers(1, 3),
        limits=st.sampled_from([LIMITS, EngineLimits(256, 256, 3), EngineLimits(512, 64, 64)]),
    )
    def take(self, idle, limits):
        before = self.waiting()
        items = self.queue.take(limits, idle=idle)
        assert all(item in before for item in items)
        assert all(item.live is not None for item in items)
        assert sum(map(len, items)) <= limits.bin_tokens or len(items) == 1
        assert all(len(item) <= limits.ubatch_tokens_max for item in items)
        assert len(items) <= limits.sequences_max
        fits = [item for item in self.waiting() if len(item) <= limits.ubatch_tokens_max]
        # The first of each call alone can be taken: those behind one that is too long wait.
        fronts = {id(job.items[0]) for job in self.queue._jobs if job.items}
        assert items or not any(id(item) in fronts for item in fits)
        if items:
            self.bins.append(items)

    @precondition(lambda self: self.bins)
    @rule(data=st.data())
    def settle(self, data):
        index = data.draw(st.integers(0, len(self.bins) - 1))
        self.desk.settle(self.bins.pop(index))

    @precondition(lambda self: self.bins)
    @rule(data=st.data())
    def refuse(self, data):
        items = self.bins.pop(data.draw(st.integers(0, len(self.bins) - 1)))
        guilty, good = items[0], items[1:]
        self.desk.settle(good)
        del self.queue.items[guilty.digest]
        for job in dict.fromkeys(job for job, _ in guilty.takers):
            job.failed = True
            self.queue.remove(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def leave(self, data):
        self.jobs[data.draw(st.integers(0, len(self.jobs) - 1))].cancelled = True

    @invariant()
    def every_token_that_is_in_no_bin_is_counted_once(self):
        waiting = self.waiting()
        assert self.queue.tokens == sum(map(len, waiting))
        assert len({item.digest for item in waiting}) == len(waiting)
        for kind, line in self.queue._lines.items():
            jobs = [job for key in line.keys.values() for job in key.jobs]
            assert line.tokens == sum(len(item) for job in jobs for item in job.items)
            assert all(job.kind is kind and job.items for job in jobs)

    @invariant()
    def every_item_waits_or_is_in_a_bin(self):
        known = {item.digest for item in self.waiting()}
        in_bins = {item.digest for items in self.bins for item in items}
        assert not known & in_bins
        assert set(self.queue.items) == known | in_bins

    @invariant()
    def whoever_still_waits_will_be_given_every_row(self):
        owed = Counter(job for item in self.queue.items.values() for job, _ in item.takers)
        for job in self.jobs:
            assert job.is_over or owed[job] == job.left

    def drain(self):
        for items in self.bins:
            self.desk.settle(items)
        self.bins = []
        while items := self.queue.take(LIMITS, idle=1):
            self.desk.settle(items)
        assert all(job.is_over or job.left == 0 for job in self.jobs)
        assert (len(self.queue), self.queue.tokens, self.queue.items) == (0, 0, {})


def test_the_queues_books_are_right_through_any_history():
    run_state_machine_as_test(
        History, settings=settings(max_examples=RUNS, stateful_step_count=40, deadline=None)
    )
