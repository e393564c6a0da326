from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from appliance.core.errors import InputTooLong, InvalidRequest
from appliance.sequences.sequence import Frame
from appliance.tasks.plan import plan_cosine, plan_pairs
from appliance.tasks.rerank import ranking

FRAME = Frame(cls=901, sep=902)
PLANS = pytest.mark.parametrize("plan", [plan_pairs, plan_cosine])


def text(length, token=1):
    return np.full(length, token, np.int32)


def test_a_pair_for_each_document_in_order():
    found = plan_pairs(
        text(2), [text(1, 5), text(0), text(3, 6)], FRAME, tokens_max=20, truncate=False
    )
    assert [s.tokens.tolist() for s in found.sequences] == [
        [901, 1, 1, 902, 5, 902],
        [901, 1, 1, 902, 902],
        [901, 1, 1, 902, 6, 6, 6, 902],
    ]
    assert [s.segment_b for s in found.sequences] == [4, 4, 4]
    assert (found.tokens, found.truncated) == (19, 0)


def test_the_query_and_then_each_document_for_a_model_that_compares_vectors():
    found = plan_cosine(text(2), [text(1, 5), text(0)], FRAME, tokens_max=20, truncate=False)
    assert [s.tokens.tolist() for s in found.sequences] == [
        [901, 1, 1, 902],
        [901, 5, 902],
        [901, 902],
    ]
    assert (found.tokens, found.truncated) == (9, 0)


@PLANS
def test_what_was_cut_is_counted_and_not_billed(plan):
    found = plan(text(5), [text(3), text(100)], FRAME, tokens_max=12, truncate=True)
    assert found.truncated == 1
    assert found.tokens == sum(map(len, found.sequences))
    assert max(map(len, found.sequences)) == 12


@PLANS
def test_a_document_that_does_not_fit_is_named_when_cutting_is_forbidden(plan):
    with pytest.raises(InputTooLong) as refused:
        plan(text(5), [text(3), text(100)], FRAME, tokens_max=12, truncate=False)
    assert (refused.value.index, refused.value.param) == (1, "documents")
    assert refused.value.tokens == (108 if plan is plan_pairs else 102)


def test_a_query_that_does_not_fit_is_named_when_cutting_is_forbidden():
    with pytest.raises(InputTooLong) as refused:
        plan_cosine(text(11), [text(3)], FRAME, tokens_max=12, truncate=False)
    assert (refused.value.param, refused.value.tokens) == ("query", 13)


@pytest.mark.parametrize(
    ("query", "documents", "match"),
    [(0, [1], r"query\[0\] has no tokens"), (1, [1, 0], r"documents\[1\] has no tokens")],
)
def test_a_text_without_tokens_is_refused_where_nothing_frames_it(query, documents, match):
    with pytest.raises(InvalidRequest, match=match):
        plan_cosine(
            text(query),
            [text(length) for length in documents],
            Frame(None, None),
            tokens_max=12,
            truncate=True,
        )


def test_a_cut_query_counts_as_cut():
    assert plan_cosine(text(11), [text(3)], FRAME, tokens_max=12, truncate=True).truncated == 1


scores = arrays.arrays(
    np.float32, st.integers(1, 30), elements=st.sampled_from([-2.5, -1, 0, 0.5, 0.5, 1, 3e30])
)


@given(scores)
def test_a_ranking_holds_every_document_once_best_first_and_equals_in_order(values):
    found = ranking(values, None)
    assert sorted(index for index, _ in found) == list(range(len(values)))
    assert all(score == values[index] for index, score in found)
    for (index, score), (next_index, next_score) in pairwise(found):
        assert score > next_score or (score == next_score and index < next_index)


@given(scores, st.integers(1, 40))
def test_top_n_is_the_beginning_of_the_whole_ranking(values, top_n):
    assert ranking(values, top_n) == ranking(values, None)[:top_n]


def test_scores_are_python_numbers():
    [(index, score)] = ranking(np.array([0.5], np.float32), None)
    assert (type(index), type(score)) == (int, float)
