"""Answers about tokens: they are bounded before they are made, and counted as they are."""

import tracemalloc
from types import SimpleNamespace

import pytest

from appliance import tokenizing
from appliance.core.errors import InvalidRequest
from appliance.sequences.sequence import Frame
from appliance.wire.tokens import DetokenizeRequest, TokenizeRequest
from tests.unit.engine.test_vocabulary import TOKENIZER, VOCABULARY

ENCODER = SimpleNamespace(tokenizer=TOKENIZER, frame=Frame(101, 102), tokens_max=512)
SPEC = SimpleNamespace(id="m", entry=SimpleNamespace(max_input_tokens=512))
TEXTS = {
    "words": "hello, brave world! the models are embedded here " * 600,
    "letters": "a b " * 8_000,
    "ideographs": "東京" * 15_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    ("render", "has_pieces", "each"),
    [
        (tokenizing._tei_tokens, False, tokenizing.SPAN_BYTES),
        (tokenizing._tokens, False, tokenizing.TOKEN_BYTES),
        (tokenizing._tokens, True, tokenizing.TOKEN_BYTES + tokenizing.PIECE_BYTES),
    ],
)
def test_an_answer_takes_no_more_memory_than_is_counted_for_it(text, render, has_pieces, each):
    texts = [text] * 2
    found = TOKENIZER.encode(texts)
    sent = TokenizeRequest(
        model=None,
        texts=texts,
        is_single=False,
        with_specials=True,
        return_pieces=has_pieces,
        pairs_first=False,
        is_tei=False,
    )
    tracemalloc.start()
    try:
        render(SPEC, sent, found, ENCODER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= each * sum(map(len, found))


def test_a_text_that_is_too_large_is_refused_before_it_is_joined(monkeypatch):
    joined = []
    monkeypatch.setattr(
        type(VOCABULARY), "text", lambda _, tokens: joined.append(len(tokens)) or ""
    )
    sent = DetokenizeRequest(
        model=None,
        tokens=[[5], TOKENIZER.encode(["considerable"])[0].tolist() * 1_000],
        is_single=False,
        param="tokens",
        with_specials=True,
        is_tei=False,
    )
    with pytest.raises(InvalidRequest, match="stands for more than 100 characters") as refused:
        tokenizing._detokenized(SPEC, sent, ENCODER, 100 * tokenizing.COPIES)
    assert refused.value.param == "tokens"
    assert joined == [1]
