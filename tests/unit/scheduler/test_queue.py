"""The queue alone: what it holds, whose turn it is, and its books, through any history."""

import asyncio
import os
import time
from collections import Counter, defaultdict
from fractions import Fraction

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
from appliance.scheduler.job import Item, Job, ServiceClass, digest_of
from appliance.scheduler.queue import SPLIT_TOKENS, TAGS_MAX, WorkQueue, split_evenly
from appliance.sequences.sequence import TokenSequence

LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
RUNS = int(os.environ.get("MODEL_RUNS", "40"))


def sequence(token, length):
    return TokenSequence(np.full(length, token, np.int32), length, truncated=False)


class BatchSource:
    """Does to a queue what an engine does, without workers."""

    def __init__(self):
        self.queue = WorkQueue()
        self.loop = asyncio.new_event_loop()
        self.next_token = 0
        self.names = {}
        """The name of each job."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.close()

    async def _job(self, count, key, service_class):
        return Job(count, width=1, key=key, service_class=service_class, now_ns=0)

    def add(self, sequences, *, key="k", service_class=ServiceClass.LONG):
        """Queue sequences as the engine does: equal ones are one item."""
        job = self.loop.run_until_complete(self._job(len(sequences), key, service_class))
        self.queue.admit(job)
        for row, each in enumerate(sequences):
            item = self.queue.items.get(digest_of(each))
            if item is None:
                item = Item(each, digest_of(each), [])
                self.queue.items[item.digest] = item
                job.items.append(item)
            item.waiters.append((job, row))
        if job.items:
            self.queue.add(job)
        return job

    def fill(self, count, length, *, key="k", service_class=ServiceClass.LONG):
        """Queue texts that differ from all before."""
        first, self.next_token = self.next_token, self.next_token + count
        return self.add(
            [sequence(first + n, length) for n in range(count)],
            key=key,
            service_class=service_class,
        )

    def take(self, *, limits=LIMITS, idle=1):
        return self.queue.take(limits, idle=idle)

    def finish_batch(self, items):
        """Give every waiter of a batch its row."""
        ended = []
        for item in items:
            del self.queue.items[item.digest]
            for job, row in item.waiters:
                if job.put(row, np.zeros(1, np.float32)):
                    assert self.queue.release(job)
                    ended.append(job)
        return ended

    def compute(self, **options):
        items = self.take(**options)
        self.finish_batch(items)
        return items


@pytest.fixture
def source():
    with BatchSource() as made:
        yield made


def owner(item):
    return item.waiters[0][0]


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
def test_batch_after_batch_everything_is_computed_once_and_each_call_in_order(calls, sequences_max):
    limits = EngineLimits(512, 256, sequences_max)
    with BatchSource() as source:
        jobs = [
            source.fill(count, length, key=key)
            for key, each in calls.items()
            for count, length in each
        ]
        given_items = {job: list(job.items) for job in jobs}
        got = defaultdict(list)
        while items := source.compute(limits=limits):
            tokens = sum(map(len, items))
            assert tokens <= limits.max_batch_tokens or len(items) == 1
            assert len(items) <= sequences_max
            for item in items:
                got[owner(item)].append(item)
        assert got == given_items
        assert all(job.left == 0 for job in jobs)
        assert len(source.queue) == source.queue.tokens == 0
        assert source.queue.items == {}


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_keys_that_always_wait_get_equal_tokens_within_a_batch_and_a_text(data):
    max_batch_tokens = data.draw(st.sampled_from([64, 256]))
    limits = EngineLimits(512, max_batch_tokens, 64)
    keys = data.draw(st.integers(2, 5))
    lengths = [
        data.draw(st.lists(st.integers(1, 512), min_size=1, max_size=4)) for _ in range(keys)
    ]
    calls = [data.draw(st.integers(1, 4)) for _ in range(keys)]
    with BatchSource() as source:
        for index in range(keys):
            for _ in range(calls[index]):
                source.add(
                    [
                        sequence(source.next_token + n, lengths[index][n % len(lengths[index])])
                        for n in range(240 // calls[index])
                    ],
                    key=str(index),
                    service_class=ServiceClass.SHORT,
                )
                source.next_token += 240
        found = Counter({str(index): 0 for index in range(keys)})
        longest = max(map(max, lengths))
        lines = source.queue._classes[ServiceClass.SHORT].keys
        while len(lines) == keys:
            found += served(source.compute(limits=limits))
            if len(lines) == keys:
                spread = max(found.values()) - min(found[str(index)] for index in range(keys))
                assert spread <= max_batch_tokens + longest + 32


def test_short_texts_take_no_more_than_their_share_where_long_ones_leave_gaps(source):
    for key, length in (("short", 4), ("long", 129), ("as long", 129)):
        source.fill(2000, length, key=key, service_class=ServiceClass.SHORT)
    found = Counter()
    for _ in range(80):
        found += served(source.compute())
        assert max(found.values()) - min(found[key] for key in found) <= 256 + 129


def test_a_key_owes_nothing_for_what_it_was_given_while_it_was_alone(source):
    short = ServiceClass.SHORT
    alone = source.fill(400, 200, key="a", service_class=short)
    for _ in range(300):
        source.compute()
    assert len(alone.items) == 100
    source.fill(2000, 10, key="a", service_class=short)
    source.fill(2000, 10, key="b", service_class=short)
    found = Counter()
    for _ in range(60):
        found += served(source.compute())
    assert abs(found["a"] - found["b"]) <= 256 + 200


LATER = (ServiceClass.LONG, ServiceClass.BATCH)
"""Whose calls are finished one after the other."""


@pytest.mark.parametrize("service_class", LATER)
def test_a_call_owes_nothing_for_what_it_was_given_while_it_was_alone(source, service_class):
    alone = source.fill(400, 200, key="a", service_class=service_class)
    for _ in range(300):
        source.compute()
    for _ in range(100):
        source.fill(100, 10, key="b", service_class=service_class)
    found = Counter()
    while alone.items:
        found += served(source.compute())
    assert abs(found["b"] - 100 * 200) <= 1_000 + 256 + 200, "each half of what is left of it"


@pytest.mark.parametrize("service_class", LATER)
def test_equal_calls_of_several_keys_end_one_after_the_other(source, service_class):
    jobs = [source.fill(100, 50, key=key, service_class=service_class) for key in "abcd"]
    ends, total = [], 0
    while items := source.compute():
        total += sum(map(len, items))
        ends += [total for job in jobs[len(ends) :] if not job.items]
    assert len(ends) == 4
    for number, end in enumerate(ends, 1):
        assert number * 5_000 <= end <= number * 5_000 + 256


@pytest.mark.parametrize("service_class", LATER)
def test_a_small_call_does_not_wait_for_a_large_one_nor_a_large_one_for_ever(source, service_class):
    large = source.fill(1_000, 50, key="large", service_class=service_class)
    for _ in range(4):
        source.compute()
    small, calls, total, alone = None, 0, 4 * 250, 4 * 250
    while large.items:
        if small is None or not small.items:
            small, calls = source.fill(20, 50, key="small", service_class=service_class), calls + 1
        before = len(large.items)
        total += sum(map(len, source.compute()))
        if calls == 1:
            assert len(large.items) >= before - 5, "the small one comes first"
    # It is given half of all that is computed, as if both advanced together.
    assert abs(total - alone - 2 * (1_000 * 50 - alone)) <= 20 * 50 + 256 + 50


fluid_calls = st.lists(st.integers(1, 60), min_size=1, max_size=3)


def fluid_ends(calls):
    """Return the tokens that all keys together have got when each call ends, all advancing alike.

    `calls` are the tokens of each key's calls, in their order.
    """
    left = {key: list(each) for key, each in calls.items()}
    ends = {key: [] for key in calls}
    total = Fraction(0)
    while active := [key for key, each in left.items() if each]:
        step = min(left[key][0] for key in active)
        total += step * len(active)
        for key in active:
            left[key][0] -= step
            if not left[key][0]:
                left[key].pop(0)
                ends[key].append(total)
    return ends


@given(st.dictionaries(st.sampled_from("abcdef"), fluid_calls, min_size=1))
@settings(deadline=None)
def test_no_long_call_ends_later_than_if_all_advanced_together(calls):
    with BatchSource() as source:
        jobs = {
            (key, number): source.fill(count, 32, key=key)
            for key, each in calls.items()
            for number, count in enumerate(each)
        }
        fluid = fluid_ends({key: [32 * count for count in each] for key, each in calls.items()})
        total, ends = 0, {}
        while items := source.compute():
            total += sum(map(len, items))
            for name, job in jobs.items():
                if not job.items:
                    ends.setdefault(name, total)
        for (key, number), end in ends.items():
            assert end <= fluid[key][number] + 256
        assert len(ends) == len(jobs)


def test_a_key_that_comes_back_begins_where_it_stopped_and_few_are_remembered(source):
    for number in range(2 * TAGS_MAX):
        source.fill(1, 1, key=f"gone {number}")
        source.fill(4, 200, key=f"gone {number}", service_class=ServiceClass.BATCH)
    while source.compute():
        pass
    for each in source.queue._classes.values():
        assert len(each.tags) <= TAGS_MAX
    waiting = source.fill(20, 200, key="waits")
    again = None
    got = 0
    while waiting.items:
        if again is None or not again.items:
            again = source.fill(5, 200, key="comes back")
        got += served(source.compute())["comes back"]
    assert got <= 20 * 200 + 5 * 200, "no more than the key that waited"


def test_short_calls_of_one_key_take_turns_by_text(source):
    one, two, three = (source.fill(100, 80, service_class=ServiceClass.SHORT) for _ in range(3))
    for _ in range(20):
        source.compute()
    lefts = [len(job.items) for job in (one, two, three)]
    assert max(lefts) - min(lefts) <= 1


@pytest.mark.parametrize("service_class", [ServiceClass.LONG, ServiceClass.BATCH])
def test_of_long_calls_of_one_key_those_that_were_begun_are_finished_first(source, service_class):
    jobs = [source.fill(20, 80, service_class=service_class) for _ in range(3)]
    other = source.fill(20, 80, key="other", service_class=service_class)
    for _ in range(200):
        source.compute()
        lefts = [len(job.items) for job in jobs]
        # One at most is between its beginning and its end, and none overtakes an earlier one.
        assert sum(0 < left < 20 for left in lefts) <= 1
        assert lefts == sorted(lefts)
    assert [len(job.items) for job in (*jobs, other)] == [0] * 4


def test_the_backlog_of_a_call_is_what_fair_turns_serve_before_it_ends(source):
    def backlog(key, service_class, tokens):
        found = source.queue.backlog(key, service_class, tokens)
        return found.own, found.before, found.whole

    assert backlog("a", ServiceClass.LONG, 1_000) == (0, 0, 0)
    source.fill(100, 80, key="a", service_class=ServiceClass.LONG)
    source.fill(1_000, 80, key="b", service_class=ServiceClass.LONG)
    # Its own 8,000, and as much of the other key as it will have been given by then.
    assert backlog("a", ServiceClass.LONG, 1_000) == (8_000, 8_000 + 9_000, 88_000)
    assert backlog("c", ServiceClass.LONG, 1_000) == (0, 1_000 + 1_000, 88_000)
    assert backlog("b", ServiceClass.LONG, 1_000) == (80_000, 80_000 + 8_000, 88_000)
    assert backlog("c", ServiceClass.SHORT, 10) == (0, 0, 0)
    for _ in range(20):
        source.compute()
    left = source.queue.backlog("b", ServiceClass.LONG, 1)
    assert left.own + source.queue.backlog("a", ServiceClass.LONG, 1).own == left.whole < 88_000


def test_a_class_gets_its_share_beside_those_that_wait_and_short_calls_that_are_expected(source):
    def share(service_class):
        return source.queue.backlog("k", service_class, 1).share

    assert share(ServiceClass.LONG) == 1
    source.fill(100, 80, service_class=ServiceClass.BATCH)
    assert share(ServiceClass.LONG) == 10 / 11
    source.fill(100, 80, service_class=ServiceClass.LONG)
    assert share(ServiceClass.BATCH) == 1 / 11
    source.fill(1, 10, service_class=ServiceClass.SHORT)
    assert share(ServiceClass.LONG) == 10 / 21
    source.compute()  # the short call; another one is expected
    assert share(ServiceClass.LONG) == 10 / 21


@pytest.mark.parametrize(
    ("alone", "saturated", "batches"),
    [
        pytest.param(ServiceClass.SHORT, ServiceClass.LONG, 4, id="short calls beside long ones"),
        pytest.param(ServiceClass.LONG, ServiceClass.SHORT, 2, id="long calls beside short ones"),
        pytest.param(
            ServiceClass.BATCH, ServiceClass.LONG, 12, id="the batch tier beside realtime"
        ),
        pytest.param(ServiceClass.LONG, ServiceClass.BATCH, 2, id="realtime beside the batch tier"),
    ],
)
def test_what_a_class_was_given_while_it_was_alone_is_not_held_against_it(
    source, alone, saturated, batches
):
    for _ in range(1000):
        source.fill(1, 250, service_class=alone)
        source.compute()
    assert source.queue.tokens == 0
    source.fill(10_000, 10, key="other", service_class=saturated)
    source.compute()
    job = source.fill(1, 10, key="late", service_class=alone)
    for _ in range(batches):
        source.compute()
    assert job.left == 0


@pytest.mark.parametrize("service_class", [ServiceClass.SHORT, ServiceClass.LONG])
def test_classes_never_share_a_batch(source, service_class):
    for _ in range(5):
        source.fill(3, 10, service_class=service_class)
        source.fill(3, 10, service_class=ServiceClass.BATCH)
    while items := source.compute():
        assert len({owner(item).service_class for item in items}) == 1


# -- spreading ----------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 64), st.integers(1, 512), st.integers(0, 511))
def test_what_waits_is_parted_evenly_and_never_beyond_the_limits(
    tokens, idle, max_batch_tokens, more
):
    limits = EngineLimits(max_batch_tokens + more, max_batch_tokens, 64)
    found = split_evenly(tokens, limits, idle)
    assert found.max_batch_tokens <= limits.max_batch_tokens
    assert found.max_batch_tokens * idle >= min(tokens, idle * limits.max_batch_tokens)
    assert found.max_batch_tokens >= min(SPLIT_TOKENS, max_batch_tokens)
    assert (found.ubatch_tokens_max, found.sequences_max) == (max_batch_tokens + more, 64)


# -- leaving ------------------------------------------------------------------------------------


def test_the_tokens_of_a_cancelled_call_leave_the_queue(source):
    leaves, stays = source.fill(10, 10, key="a"), source.fill(10, 7, key="b")
    leaves.cancelled = True
    items = source.take()
    assert {owner(item) for item in items} == {stays}
    assert (len(source.queue), source.queue.tokens) == (0, 0)


def test_texts_that_two_calls_want_stay_when_the_first_one_leaves(source):
    same = [sequence(token, 10) for token in range(5)]
    leaves, stays = source.add(same, key="a"), source.add(same, key="b")
    assert (len(source.queue), source.queue.tokens) == (1, 50)
    leaves.cancelled = True
    assert len(source.compute()) == 5
    assert stays.left == 0
    assert source.queue.items == {}


def test_the_next_waiter_of_another_class_takes_them_into_its_own_queue(source):
    same = [sequence(token, 10) for token in range(5)]
    leaves = source.add(same, key="a", service_class=ServiceClass.BATCH)
    stays = source.add(same, key="b", service_class=ServiceClass.SHORT)
    leaves.cancelled = True
    source.fill(100, 10, service_class=ServiceClass.LONG)
    batches = [source.compute(), source.compute()]
    assert stays.left == 0
    assert [owner(batches[0][0]), owner(batches[1][0])].count(leaves) == 1
    lines = source.queue._classes
    assert lines[ServiceClass.BATCH].tokens == lines[ServiceClass.SHORT].tokens == 0


def test_forgetting_everything_names_everyone_who_waited(source):
    one = source.fill(100, 10)
    two = source.add([each.sequence for each in list(one.items)[:3]], key="other")
    assert source.take()
    assert source.queue.clear() == [one, two]
    assert not source.queue.release(one)
    assert (len(source.queue), source.queue.tokens, source.queue.items) == (0, 0, {})


def test_a_job_that_is_over_is_forgotten_with_its_last_text(source):
    one = source.fill(2, 10)
    shares = source.add([each.sequence for each in one.items], key="other")
    shares.cancelled = True
    one.cancelled = True
    assert source.take() == []
    assert source.queue.clear() == []


# -- quickness ----------------------------------------------------------------------------------


def quickest(action):
    """Return the least seconds that it takes: neighbours only ever add to them."""
    found = []
    for _ in range(5):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return min(found)


def test_a_batch_is_chosen_quickly_from_64_keys_with_texts_of_any_length(source):
    limits = EngineLimits(8192, 256, 64)
    random = np.random.default_rng(1)
    for key in range(64):
        for _ in range(4):
            lengths = random.choice([5, 50, 500, 8192], 40)
            first, source.next_token = source.next_token, source.next_token + 40
            source.add(
                [sequence(first + n, int(length)) for n, length in enumerate(lengths)],
                key=str(key),
            )
    for _ in range(200):
        source.compute(limits=limits)
    assert quickest(lambda: source.compute(limits=limits)) < 0.02


def test_a_batch_is_chosen_quickly_from_many_calls_of_many_keys(source):
    for key in range(64):
        for _ in range(64):
            source.fill(32, 8, key=str(key))
    assert quickest(source.compute) < 0.02


# -- any history --------------------------------------------------------------------------------


class History(RuleBasedStateMachine):
    """Calls come, leave, fail and are computed, as an engine would tell the queue."""

    def __init__(self):
        super().__init__()
        self.source = BatchSource()
        self.queue = self.source.queue
        self.jobs = []
        self.bins = []
        self.taken = Counter()
        self.put = {}

    def teardown(self):
        self.drain()
        self.source.loop.close()

    def waiting(self):
        """Every item that is in no batch."""
        return [item for job in self.queue._jobs for item in job.items]

    @rule(
        tokens=st.lists(st.integers(0, 12), min_size=1, max_size=8),
        key=st.sampled_from("abc"),
        service_class=st.sampled_from(ServiceClass),
    )
    def come(self, tokens, key, service_class):
        lengths = (10, 300, 60, 5)
        self.jobs.append(
            self.source.add(
                [sequence(token, lengths[token % 4]) for token in tokens],
                key=key,
                service_class=service_class,
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
        assert all(item.first_live_waiter is not None for item in items)
        assert sum(map(len, items)) <= limits.max_batch_tokens or len(items) == 1
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
    def finish_batch(self, data):
        index = data.draw(st.integers(0, len(self.bins) - 1))
        self.source.finish_batch(self.bins.pop(index))

    @precondition(lambda self: self.bins)
    @rule(data=st.data())
    def refuse(self, data):
        items = self.bins.pop(data.draw(st.integers(0, len(self.bins) - 1)))
        guilty, good = items[0], items[1:]
        self.source.finish_batch(good)
        del self.queue.items[guilty.digest]
        for job in dict.fromkeys(job for job, _ in guilty.waiters):
            job.failed = True
            self.queue.remove(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def leave(self, data):
        self.jobs[data.draw(st.integers(0, len(self.jobs) - 1))].cancelled = True

    @invariant()
    def every_token_that_is_in_no_batch_is_counted_once(self):
        waiting = self.waiting()
        assert self.queue.tokens == sum(map(len, waiting))
        assert len({item.digest for item in waiting}) == len(waiting)
        for service_class, line in self.queue._classes.items():
            jobs = [job for key in line.keys.values() for job in key.jobs]
            assert line.tokens == sum(len(item) for job in jobs for item in job.items)
            assert all(job.service_class is service_class and job.items for job in jobs)

    @invariant()
    def every_item_waits_or_is_in_a_batch(self):
        known = {item.digest for item in self.waiting()}
        in_batches = {item.digest for items in self.bins for item in items}
        assert not known & in_batches
        assert set(self.queue.items) == known | in_batches

    @invariant()
    def whoever_still_waits_will_be_given_every_row(self):
        owed = Counter(job for item in self.queue.items.values() for job, _ in item.waiters)
        for job in self.jobs:
            assert job.is_over or owed[job] == job.left

    def drain(self):
        for items in self.bins:
            self.source.finish_batch(items)
        self.bins = []
        while items := self.queue.take(LIMITS, idle=1):
            self.source.finish_batch(items)
        assert all(job.is_over or job.left == 0 for job in self.jobs)
        assert (len(self.queue), self.queue.tokens, self.queue.items) == (0, 0, {})


def test_the_queues_books_are_right_through_any_history():
    run_state_machine_as_test(
        History, settings=settings(max_examples=RUNS, stateful_step_count=40, deadline=None)
    )
