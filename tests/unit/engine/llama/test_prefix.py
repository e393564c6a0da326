"""The layout in which a common beginning stands once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.llama.prefix import layout_apart, layout_shared, owners

# Few different tokens, so that beginnings agree often.
batches = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=8).map(lambda ids: np.array(ids, np.int32)),
    min_size=1,
    max_size=12,
)


def laid(tokens, layout):
    """(token, position, owning places) of every token, in the order of the batch."""
    lengths = [len(tokens[index]) for index in layout.order]
    for place, index in enumerate(layout.order):
        counts = owners(layout.shared, lengths, place)
        first = layout.shared[place]
        assert len(counts) == lengths[place] - first
        for position, count in enumerate(counts, first):
            yield int(tokens[index][position]), position, range(place, place + count)


@given(batches)
def test_every_sequence_is_there_once_whole_and_in_order(tokens):
    layout = layout_shared(tokens)
    assert sorted(layout.order) == list(range(len(tokens)))
    found = [[] for _ in tokens]
    for token, position, places in laid(tokens, layout):
        for place in places:
            assert position == len(found[place])
            found[place].append(token)
    assert [found[layout.order.index(index)] for index in range(len(tokens))] == [
        each.tolist() for each in tokens
    ]


@given(batches)
def test_the_last_token_of_every_sequence_is_its_own(tokens):
    layout = layout_shared(tokens)
    for _, position, places in laid(tokens, layout):
        for place in places:
            is_last = position == len(tokens[layout.order[place]]) - 1
            assert not is_last or len(places) == 1


@given(batches)
def test_no_beginning_stands_twice(tokens):
    """Every beginning of a sequence, its last token left off, is a token of its own in the tree."""
    beginnings = {tuple(each[:end]) for each in tokens for end in range(1, len(each))}
    laid_out = sum(1 for _ in laid(tokens, layout_shared(tokens)))
    assert laid_out <= len(beginnings) + len(tokens)


@given(batches)
def test_apart_means_that_nothing_is_shared(tokens):
    found = list(laid(tokens, layout_apart(len(tokens))))
    assert [token for token, _, _ in found] == np.concatenate(tokens).tolist()
    assert all(len(places) == 1 for _, _, places in found)


def test_a_query_with_its_documents_stands_once_beside_another_query():
    one, other = [7, 1, 2, 3], [7, 4, 4]
    tokens = [np.array(ids, np.int32) for ids in ([*one, 5], [*other, 5], [*one, 6], [*other, 6])]
    layout = layout_shared(tokens)
    assert sum(layout.shared) == len(one) + 1 + len(other)
