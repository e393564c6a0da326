"""The models of the first page: which, in which order, and what is said of them."""

from decimal import Decimal

import msgspec
import pytest

from appliance.pages.catalogue import WORDS_MAX, State, Wish, first_of, rows, state_of
from appliance.wire.models import ModelView, PriceView


def model(name="a/b", task="embeddings", **fields):
    plain = ModelView(
        id=name,
        object="model",
        created=0,
        owned_by="a",
        task=task,
        params=22_565_376,
        pricing=PriceView(Decimal("0.008"), Decimal("0.004"), "1M tokens"),
        available=True,
        loaded=False,
        max_input_tokens=256,
        license="apache-2.0",
        description="",
        aliases=(),
        quantization="F16",
    )
    return msgspec.structs.replace(plain, **fields)


LOADED = model("z/loaded", loaded=True)
COLD = model("y/cold")
ABSENT = model("b/absent", available=False, missing=True, reason="its file is missing")
BROKEN = model("a/broken", available=False, reason="no head for scores")
RANKS = model("x/ranks", "rerank", description="A cross-encoder.", aliases=("Small-Ranker",))
ALL = (ABSENT, BROKEN, COLD, LOADED, RANKS)


def ids(found):
    return [row.model.id for row in found]


@pytest.mark.parametrize(
    ("of", "state", "said"),
    [
        (LOADED, State.LOADED, "in memory"),
        (COLD, State.COLD, "the first call loads it"),
        (ABSENT, State.ABSENT, "the operator can fetch it"),
        (BROKEN, State.UNUSABLE, "no head for scores"),
    ],
)
def test_what_is_said_of_a_model(of, state, said):
    assert state_of(of) is state
    [row] = rows([of], Wish())
    assert said in row.meaning


def test_what_answers_soonest_stands_first():
    found = ids(rows(ALL, Wish()))
    assert found == ["z/loaded", "y/cold", "x/ranks", "b/absent", "a/broken"]


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        (Wish(task="rerank"), ["x/ranks"]),
        (Wish(here=True), ["z/loaded", "y/cold", "x/ranks"]),
        (Wish(words="small-RANKER"), ["x/ranks"]),
        (Wish(words="apache cross"), ["x/ranks"]),
        (Wish(words="apache nothing"), []),
        (Wish(words="cold", task="rerank"), []),
    ],
)
def test_what_was_asked_for(wish, found):
    assert ids(rows(ALL, wish)) == found


def test_what_makes_no_sense_in_a_query_asks_for_everything():
    assert Wish.of(None, None, None) == Wish.of(" ", "cook", "yes") == Wish()
    assert Wish.of(" a b ", "rerank", "1") == Wish("a b", "rerank", here=True)
    assert len(Wish.of("x" * 10_000, None, None).words) == WORDS_MAX


def test_an_example_has_the_default_model_or_the_one_that_answers_soonest():
    assert first_of(ALL, "embeddings", "y/cold") == "y/cold"
    assert first_of(ALL, "embeddings", None) == "z/loaded"
    assert first_of(ALL, "rerank", None) == "x/ranks"
    assert first_of([ABSENT, BROKEN], "embeddings", None) is None
