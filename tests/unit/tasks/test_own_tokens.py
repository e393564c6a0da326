"""Ids of the model's own: as the tokens of a text would be, or refused with their place."""

import numpy as np
import pytest

from appliance.core.errors import InvalidRequest
from appliance.engine.vocabulary import WordPieceVocabulary
from appliance.tasks.own_tokens import own_tokens

VOCABULARY = WordPieceVocabulary({"a": 1, "b": 2}, {0: "[PAD]", 3: "[SEP]"})


def test_ids_become_the_tokens_of_texts():
    found = own_tokens([[1, 2], [2]], VOCABULARY, is_single=False)
    assert [each.tolist() for each in found] == [[1, 2], [2]]
    assert all(each.dtype == np.int32 for each in found)


@pytest.mark.parametrize(
    ("lists", "is_single", "message"),
    [
        ([[1], [2, 4]], False, r"input\[1\]\[1\] is 4: the model has ids 0 to 3"),
        ([[1, 9]], True, r"input\[1\] is 9: "),
        ([[1], [3]], False, r"input\[1\]\[0\] is 3: a special token"),
        ([[0]], True, r"input\[0\] is 0: a special token"),
    ],
)
def test_ids_that_no_text_has_are_refused_with_their_place(lists, is_single, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        own_tokens(lists, VOCABULARY, is_single=is_single)
    assert caught.value.param == "input"
