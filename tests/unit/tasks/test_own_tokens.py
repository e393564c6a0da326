"""Ids of the model's own: as the tokens of a text would be, or refused with their place."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from appliance.catalog import catalog
from appliance.catalog.spec import Prompts
from appliance.core.errors import InvalidRequest, TokenInputUnsupported
from appliance.core.limits import Limits
from appliance.engine.vocabulary import WordPieceVocabulary
from appliance.tasks.embed import EmbedTask
from appliance.tasks.own_tokens import own_tokens, require_no_words
from appliance.wire.bodies import embeddings_request

SPEC = catalog.load(catalog.shipped_path(), None, Path("none")).find("all-minilm-l6-v2")
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


def spec_of(**prompts):
    entry = SPEC.entry
    return replace(SPEC, entry=replace(entry, prompts=Prompts(**prompts) if prompts else None))


def test_ids_of_which_nobody_has_said_whose_they_are_are_refused():
    sent = embeddings_request(b'{"model": "m", "input": [[1, 2]]}', Limits())
    with pytest.raises(TokenInputUnsupported):
        EmbedTask(sent).validate(spec_of())
    EmbedTask(replace(sent, are_own=True)).validate(spec_of())


def test_a_models_words_for_a_kind_of_text_go_with_texts():
    require_no_words(spec_of(query="search: "), None)
    require_no_words(spec_of(query="search: "), "document")
    with pytest.raises(InvalidRequest, match="words for a query") as caught:
        require_no_words(spec_of(query="search: "), "query")
    assert caught.value.param == "input_type"
