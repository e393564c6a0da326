from types import SimpleNamespace

import pytest

from appliance.catalog.capacity import OUTPUT_BYTES_MAX, UBATCH_TOKENS_MIN, sequence_tokens_max
from appliance.catalog.header import read_header
from appliance.engine.loader import engine_limits
from tests.models import write_tiny_gguf


def header(*, vocabulary, context):
    tokens = range(vocabulary)
    return SimpleNamespace(get_list=lambda _: tokens, arch_int=lambda _: context)


def test_a_small_vocabulary_leaves_the_models_own_limit():
    assert sequence_tokens_max(header(vocabulary=30_522, context=512)) == 512


@pytest.mark.parametrize("vocabulary", [250_002, 1_000_000, 10_000_000])
def test_a_large_vocabulary_bounds_a_sequence_by_the_logits_that_are_reserved(vocabulary):
    found = sequence_tokens_max(header(vocabulary=vocabulary, context=8_192))
    assert UBATCH_TOKENS_MIN <= found < 8_192
    assert found == UBATCH_TOKENS_MIN or found * vocabulary * 4 <= OUTPUT_BYTES_MAX


@pytest.mark.parametrize("vocabulary", [1, 30_522, 250_002, 10_000_000])
@pytest.mark.parametrize("context", [16, 512, 8_192, 131_072])
def test_the_engine_takes_every_sequence_that_is_allowed(vocabulary, context):
    asked = header(vocabulary=vocabulary, context=context)
    assert sequence_tokens_max(asked) <= engine_limits(asked).ubatch_tokens_max


def test_a_files_limits_are_read_from_its_header(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, seed=1)
    found = read_header(path)
    assert sequence_tokens_max(found) == found.arch_int("context_length")
