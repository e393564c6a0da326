"""The packer, held to its promises by random queues."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.backend import EngineLimits
from appliance.scheduler.packer import pack

LIMITS = EngineLimits(ubatch_tokens_max=512, bin_tokens=256, sequences_max=64)


@st.composite
def queues(draw, *, bin_tokens_max=60):
    """Limits, and the token counts of each job's waiting sequences."""
    bin_tokens = draw(st.integers(1, bin_tokens_max))
    ubatch = draw(st.integers(bin_tokens, 2 * bin_tokens_max))
    limits = EngineLimits(
        ubatch_tokens_max=ubatch, bin_tokens=bin_tokens, sequences_max=draw(st.integers(1, 8))
    )
    lengths = st.lists(st.integers(1, ubatch), max_size=10)
    return limits, draw(st.lists(lengths, max_size=10))


def given_lengths(waiting, taken):
    return [
        length for lengths, count in zip(waiting, taken, strict=True) for length in lengths[:count]
    ]


def next_lengths(waiting, taken):
    """(job, length) of the first sequence that each unfinished job still has."""
    return [
        (job, lengths[count])
        for job, (lengths, count) in enumerate(zip(waiting, taken, strict=True))
        if count < len(lengths)
    ]


@given(queues())
def test_a_job_gives_no_more_than_it_has(queue):
    limits, waiting = queue
    taken = pack(waiting, limits)
    assert len(taken) == len(waiting)
    assert all(0 <= count <= len(lengths) for count, lengths in zip(taken, waiting, strict=True))


@given(queues())
def test_a_bin_is_never_over_filled(queue):
    limits, waiting = queue
    chosen = given_lengths(waiting, pack(waiting, limits))
    assert len(chosen) <= limits.sequences_max
    assert sum(chosen) <= limits.ubatch_tokens_max
    assert sum(chosen) <= limits.bin_tokens or len(chosen) == 1


@given(queues())
def test_a_sequence_longer_than_a_bin_is_computed_alone(queue):
    limits, waiting = queue
    chosen = given_lengths(waiting, pack(waiting, limits))
    assert len(chosen) == 1 or all(length <= limits.bin_tokens for length in chosen)


@given(queues())
def test_whoever_waits_first_is_served_first(queue):
    limits, waiting = queue
    taken = pack(waiting, limits)
    first = next((job for job, lengths in enumerate(waiting) if lengths), None)
    assert first is None or taken[first] >= 1


@given(queues())
def test_what_is_left_out_would_not_have_fitted(queue):
    limits, waiting = queue
    taken = pack(waiting, limits)
    chosen = given_lengths(waiting, taken)
    for _, length in next_lengths(waiting, taken):
        assert len(chosen) == limits.sequences_max or sum(chosen) + length > limits.bin_tokens


@given(queues())
def test_no_job_is_two_turns_ahead_of_one_that_could_have_gone(queue):
    limits, waiting = queue
    taken = pack(waiting, limits)
    total = sum(given_lengths(waiting, taken))
    for job, length in next_lengths(waiting, taken):
        if max(taken) > taken[job] + 1:
            assert total + length > limits.bin_tokens


@given(queues(), st.data())
def test_a_call_with_one_short_text_is_in_the_next_bin_when_it_fits_after_one_of_each(queue, data):
    limits, waiting = queue
    place = data.draw(st.integers(0, len(waiting)))
    length = data.draw(st.integers(1, limits.bin_tokens))
    waiting = [*waiting[:place], [length], *waiting[place:]]
    before = [lengths[0] for lengths in waiting[:place] if lengths]
    fits = sum(before) + length <= limits.bin_tokens and len(before) < limits.sequences_max
    assert not fits or pack(waiting, limits)[place] == 1


@given(queues())
def test_bin_after_bin_everything_is_computed_once_and_in_order(queue):
    limits, waiting = queue
    named = {job: list(enumerate(lengths)) for job, lengths in enumerate(waiting) if lengths}
    seen = {job: [] for job in named}
    bins = 0
    while named:
        order = list(named)
        taken = pack([[length for _, length in named[job]] for job in order], limits)
        assert sum(taken) >= 1
        for job, count in zip(order, taken, strict=True):
            seen[job] += named[job][:count]
            rest = named.pop(job)[count:] if count else named[job]
            if rest:
                named[job] = rest  # a job that was served goes to the back
        bins += 1
    assert all(found == list(enumerate(waiting[job])) for job, found in seen.items())
    assert bins <= sum(map(len, waiting))


def test_nothing_waiting_fills_nothing():
    assert pack([], LIMITS) == []
    assert pack([[], []], LIMITS) == [0, 0]


@pytest.mark.parametrize(
    ("waiting", "taken"),
    [
        ([[10] * 1000, [10]], [24, 1]),
        ([[512], [1]], [1, 0]),
        ([[1], [512]], [1, 0]),
        ([[256], [1]], [1, 0]),
        ([[255], [1, 1]], [1, 1]),
        ([[1] * 100, [1] * 100], [32, 32]),
        ([[100, 200, 1], [100]], [1, 1]),
        ([[200], [100], [50]], [1, 0, 1]),
    ],
)
def test_a_bin_as_worked_out_by_hand(waiting, taken):
    assert pack(waiting, LIMITS) == taken


def test_a_sequence_that_no_call_can_hold_is_our_own_mistake():
    with pytest.raises(AssertionError):
        pack([[513]], LIMITS)
