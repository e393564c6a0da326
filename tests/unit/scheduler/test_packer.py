"""The packer, held to its promises by random queues."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.backend import EngineLimits
from appliance.scheduler.packer import Turn, pack

LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)


@st.composite
def rounds(draw, *, max_batch_tokens_max=60):
    """Limits, and keys with the token counts of each job's waiting sequences."""
    max_batch_tokens = draw(st.integers(1, max_batch_tokens_max))
    ubatch = draw(st.integers(max_batch_tokens, 2 * max_batch_tokens_max))
    limits = EngineLimits(
        ubatch_tokens_max=ubatch,
        max_batch_tokens=max_batch_tokens,
        sequences_max=draw(st.integers(1, 8)),
    )
    lengths = st.integers(1, 2 * max_batch_tokens_max)
    jobs = st.lists(st.lists(lengths, max_size=8), max_size=4)
    turns = st.lists(st.tuples(st.integers(-200, 200), jobs), max_size=6)
    return limits, [Turn(deficit, jobs) for deficit, jobs in draw(turns)]


def chosen(turns, picks):
    """The lengths that were picked, each job's sequences in order."""
    taken = Counter()
    found = []
    for pick in picks:
        index, job = pick
        found.append(turns[index].jobs[job][taken[pick]])
        taken[pick] += 1
    return found


def left_in_front(turns, picks):
    """The first sequence that each job with some left still has."""
    taken = Counter(picks)
    return [
        lengths[taken[index, job]]
        for index, turn in enumerate(turns)
        for job, lengths in enumerate(turn.jobs)
        if taken[index, job] < len(lengths)
    ]


@given(rounds())
def test_a_job_gives_no_more_than_it_has(given_round):
    limits, turns = given_round
    for (index, job), count in Counter(pack(turns, limits)).items():
        assert count <= len(turns[index].jobs[job])


@given(rounds())
def test_a_batch_is_never_over_filled(given_round):
    limits, turns = given_round
    lengths = chosen(turns, pack(turns, limits))
    assert len(lengths) <= limits.sequences_max
    assert sum(lengths) <= limits.max_batch_tokens or len(lengths) == 1
    assert all(length <= limits.ubatch_tokens_max for length in lengths)


@given(rounds())
def test_a_batch_is_empty_only_when_nothing_fits(given_round):
    limits, turns = given_round
    fits = [n for n in left_in_front(turns, []) if n <= limits.ubatch_tokens_max]
    assert bool(pack(turns, limits)) == bool(fits)


@given(rounds())
def test_what_is_left_out_would_not_have_fitted_or_its_key_is_a_batch_ahead(given_round):
    limits, turns = given_round
    before = [turn.start_tag for turn in turns]
    picks = pack(turns, limits)
    lengths, taken = chosen(turns, picks), Counter(picks)
    room = limits.max_batch_tokens - sum(lengths) if lengths else limits.ubatch_tokens_max
    if len(lengths) == limits.sequences_max:
        return
    left = [
        (turn.start_tag, before[index], texts[taken[index, job]])
        for index, turn in enumerate(turns)
        for job, texts in enumerate(turn.jobs)
        if taken[index, job] < len(texts)
    ]
    # At the moment at which it was passed over, a key had its tag of before or a later one.
    passed_over = [tag for _, tag, length in left if room < length <= limits.ubatch_tokens_max]
    for tag, _, length in left:
        assert length > room or tag >= min(passed_over) + limits.max_batch_tokens


def test_short_texts_do_not_fill_every_gap_beside_keys_whose_texts_do_not_fit():
    def short_texts(start_tag):
        turns = [Turn(start_tag, [[4] * 100]), Turn(0, [[129] * 9]), Turn(10, [[129] * 9])]
        return Counter(pack(turns, LIMITS))[0, 0]

    assert short_texts(0) == 31, "what the batch has room for"
    assert short_texts(256) == 3, "until it has got a batch more than the key that was passed over"
    assert short_texts(300) == 0


def test_a_text_that_this_backend_cannot_hold_keeps_nobody_waiting():
    turns = [Turn(9999, [[4] * 100]), Turn(0, [[513]])]
    assert pack(turns, LIMITS) == [(0, 0)] * 64


@given(rounds())
def test_the_calls_of_a_key_take_turns_by_text(given_round):
    limits, turns = given_round
    picks = pack(turns, limits)
    lengths, taken = chosen(turns, picks), Counter(picks)
    room = limits.max_batch_tokens - sum(lengths)
    for index, turn in enumerate(turns):
        counts = [taken[index, job] for job in range(len(turn.jobs))]
        for job, texts in enumerate(turn.jobs):
            if counts[job] < len(texts) and texts[counts[job]] <= room:
                assert max(counts) <= counts[job] + 1


@given(rounds())
def test_the_calls_of_a_key_that_are_served_in_order_are(given_round):
    limits, turns = given_round
    for turn in turns:
        turn.left = [sum(texts) for texts in turn.jobs]
    picks = pack(turns, limits)
    lengths, taken = chosen(turns, picks), Counter(picks)
    room = limits.max_batch_tokens - sum(lengths)
    for index, turn in enumerate(turns):
        for job, texts in enumerate(turn.jobs):
            later = any(taken[index, after] for after in range(job + 1, len(turn.jobs)))
            # A later call is begun only where the next text of an earlier one did not fit.
            if later and taken[index, job] < len(texts):
                assert texts[taken[index, job]] > room


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(60, 256))
def test_keys_that_owe_nothing_get_nearly_the_same_of_a_batch(lengths, max_batch_tokens):
    limits = EngineLimits(512, max_batch_tokens, 256)
    turns = [Turn(0, [[length] * 300]) for length in lengths]
    got = Counter()
    for index, _ in pack(turns, limits):
        got[index] += lengths[index]
    full = [got[index] for index in range(len(lengths))]
    assert max(full) - min(full) <= 2 * (32 + max(lengths))


def test_nothing_waiting_fills_nothing():
    assert pack([], LIMITS) == []
    assert pack([Turn(0, []), Turn(0, [[], []])], LIMITS) == []


@pytest.mark.parametrize(
    ("jobs", "counts"),
    [
        ([[[10] * 1000], [[10]]], {(0, 0): 24, (1, 0): 1}),
        ([[[512]], [[1]]], {(0, 0): 1}),
        ([[[1]], [[512]]], {(0, 0): 1}),
        ([[[513]], [[1]]], {(1, 0): 1}),
        ([[[256]], [[1]]], {(0, 0): 1}),
        ([[[255]], [[1, 1]]], {(0, 0): 1, (1, 0): 1}),
        ([[[1] * 100, [1] * 100]], {(0, 0): 32, (0, 1): 32}),
        ([[[200]], [[100]], [[50]]], {(0, 0): 1, (2, 0): 1}),
        ([[[513], [10]]], {(0, 1): 1}),
    ],
)
def test_a_batch_as_worked_out_by_hand(jobs, counts):
    turns = [Turn(0, each) for each in jobs]
    assert Counter(pack(turns, LIMITS)) == counts


def test_a_sequence_that_no_call_can_hold_waits():
    assert pack([Turn(0, [[513, 1]])], LIMITS) == []
