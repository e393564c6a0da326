import json

import pytest

from appliance.bench.workload import BODIES, WORKLOADS, bodies, named, texts
from appliance.engine.reference_tokenizer import reference_tokenizer
from tests.unit.engine.test_tokenizer import METADATA


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name)
def test_the_same_seed_gives_the_same_bytes(workload):
    assert bodies(workload, "m") == bodies(workload, "m")
    assert len({*bodies(workload, "m")}) == BODIES


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name)
def test_a_body_is_what_its_endpoint_takes(workload):
    body = json.loads(bodies(workload, "m")[0])
    assert body["model"] == "m"
    if workload.kind == "rerank":
        assert isinstance(body["query"], str)
        assert len(body["documents"]) == workload.texts
    elif workload.texts == 1:
        assert isinstance(body["input"], str)
    else:
        assert len(body["input"]) == workload.texts


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name)
def test_texts_have_as_many_tokens_as_words(workload):
    tokenizer = reference_tokenizer(METADATA)
    given = texts(workload)[0]
    for text, tokens in zip(given, tokenizer.encode(given), strict=True):
        assert len(tokens) == len(text.split())
        assert workload.words_min <= len(tokens) <= workload.words_max


def test_workloads_are_found_by_name_and_all_without_one():
    assert named([]) == list(WORKLOADS)
    assert [each.name for each in named(["mixed", "short-1"])] == ["mixed", "short-1"]
    with pytest.raises(KeyError, match="nothing"):
        named(["nothing"])
