"""Ids of the model's own: as the tokens of a text would be, or refused with their place."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from appliance.catalog import catalog
from appliance.catalog.spec import Prompts
from appliance.core.errors import InvalidRequest, TokenInputUnsupported
from appliance.core.limits import Limits
from appliance.engine.vocabulary import WordPieceVocabulary
from appliance.shapes import openai
from appliance.tasks.own_tokens import own_tokens, require_no_words
from appliance.wire.questions import EmbeddingsRequest

SPEC = catalog.load(catalog.shipped_path(), None, Path("none")).find("all-minilm-l6-v2")
VOCABULARY = WordPieceVocabulary({"a": 1, "b": 2}, {0: "[PAD]", 3: "[SEP]"})


def asked(lists, *, is_single=False):
    return EmbeddingsRequest(model="m", texts=[], token_ids=lists, is_single=is_single)


def test_ids_become_the_tokens_of_texts():
    found = own_tokens(asked([[1, 2], [2]]), VOCABULARY)
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
        own_tokens(asked(lists, is_single=is_single), VOCABULARY)
    assert caught.value.param == "input"


def spec_of(**prompts):
    entry = SPEC.entry
    return replace(SPEC, entry=replace(entry, prompts=Prompts(**prompts) if prompts else None))


def test_ids_of_which_nobody_has_said_whose_they_are_are_refused():
    task = openai.embed_task(b'{"model": "m", "input": [[1, 2]]}', Limits())
    with pytest.raises(TokenInputUnsupported):
        task.validate(spec_of())
    own = dataclasses.replace(task, sent=replace(task.sent, are_own=True))
    own.validate(spec_of())


def test_a_models_words_for_a_kind_of_text_go_with_texts():
    require_no_words(spec_of(query="search: "), None)
    require_no_words(spec_of(query="search: "), "document")
    with pytest.raises(InvalidRequest, match="words for a query") as caught:
        require_no_words(spec_of(query="search: "), "query")
    assert caught.value.param == "input_type"
