from types import SimpleNamespace

import pytest

from appliance.catalog.capacity import (
    CACHE_BYTES_MAX,
    OUTPUT_BYTES_MAX,
    UBATCH_TOKENS_MIN,
    sequence_tokens_max,
)
from appliance.catalog.header_parser import read_header
from appliance.engine.model_limits import engine_limits
from tests.models import write_tiny_gguf


def header(*, vocabulary, context, architecture="bert", blocks=1, rows=1024):
    tokens = range(vocabulary)
    names = [f"blk.{n}.attn_{part}.weight" for n in range(blocks) for part in ("q", "k", "v")]
    return SimpleNamespace(
        architecture=architecture,
        tensors={name: SimpleNamespace(name=name, shape=(rows, 64)) for name in names},
        get_list=lambda _: tokens,
        arch_int=lambda _: context,
    )


def test_a_small_vocabulary_leaves_the_models_own_limit():
    assert sequence_tokens_max(header(vocabulary=30_522, context=512), pooling="mean") == 512


@pytest.mark.parametrize("vocabulary", [250_002, 1_000_000, 10_000_000])
def test_a_large_vocabulary_bounds_a_sequence_by_the_logits_that_are_reserved(vocabulary):
    found = sequence_tokens_max(header(vocabulary=vocabulary, context=8_192), pooling="cls")
    assert UBATCH_TOKENS_MIN <= found < 8_192
    assert found == UBATCH_TOKENS_MIN or found * vocabulary * 4 <= OUTPUT_BYTES_MAX


@pytest.mark.parametrize("vocabulary", [1, 30_522, 250_002, 10_000_000])
@pytest.mark.parametrize("context", [16, 512, 8_192, 131_072])
@pytest.mark.parametrize(
    ("architecture", "pooling"), [("bert", "mean"), ("qwen3", "last"), ("qwen3", "mean")]
)
def test_the_engine_takes_every_sequence_that_is_allowed(
    vocabulary, context, architecture, pooling
):
    asked = header(vocabulary=vocabulary, context=context, architecture=architecture)
    limits = engine_limits(asked, pooling=pooling)
    assert sequence_tokens_max(asked, pooling=pooling) <= limits.ubatch_tokens_max


@pytest.mark.parametrize("pooling", ["last", "rank"])
def test_a_decoder_is_bounded_by_its_cache_and_not_by_its_vocabulary(pooling):
    qwen3_06b = header(vocabulary=151_669, context=32_768, architecture="qwen3", blocks=28)
    found = sequence_tokens_max(qwen3_06b, pooling=pooling)
    assert found == 4681
    assert found * 28 * 2 * 1024 * 2 <= CACHE_BYTES_MAX


def test_a_decoder_that_pools_every_token_is_bounded_by_both():
    qwen3_06b = header(vocabulary=151_669, context=32_768, architecture="qwen3", blocks=28)
    assert sequence_tokens_max(qwen3_06b, pooling="mean") == OUTPUT_BYTES_MAX // (4 * 151_669)


def test_a_files_limits_are_read_from_its_header(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, seed=1)
    found = read_header(path)
    assert sequence_tokens_max(found, pooling="mean") == found.arch_int("context_length")
