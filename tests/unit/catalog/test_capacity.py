"""How long a sequence may be, and what its context takes."""

from types import SimpleNamespace

import pytest

from appliance.catalog.capacity import (
    UBATCH_TOKENS_MIN,
    Room,
    context_bytes,
    sequence_tokens_max,
)
from appliance.catalog.header_parser import read_header
from appliance.engine.model_limits import SIDE_CONTEXT_BYTES_MAX, engine_limits
from tests.models import write_tiny_gguf

GB, MB = 1 << 30, 1 << 20
ROOM = Room(8 * GB, keeps_logits=False)
UPSTREAM = Room(1 * GB, keeps_logits=True)
"""An engine without our change, on a small machine."""


def header(
    *, vocabulary, context, architecture="bert", blocks=1, rows=1024, width=1024, inner=4096
):
    tokens = range(vocabulary)
    names = [f"blk.{n}.attn_{part}.weight" for n in range(blocks) for part in ("q", "k", "v")]
    sizes = {"context_length": context, "embedding_length": width}
    return SimpleNamespace(
        architecture=architecture,
        tensors={name: SimpleNamespace(name=name, shape=(rows, 64)) for name in names},
        get_list=lambda _: tokens,
        get_int=lambda _key, _default: inner,
        arch_int=sizes.__getitem__,
    )


@pytest.mark.parametrize("room", [ROOM, UPSTREAM])
def test_a_small_vocabulary_leaves_the_models_own_limit(room):
    small = header(vocabulary=30_522, context=512)
    assert sequence_tokens_max(small, pooling="mean", room=room) == 512


def test_a_large_vocabulary_takes_what_its_publisher_says():
    bge_m3 = header(vocabulary=250_002, context=8_192)
    assert sequence_tokens_max(bge_m3, pooling="cls", room=ROOM) == 8_192
    assert context_bytes(bge_m3, pooling="cls", tokens=8_192, room=ROOM) < 400 * MB


@pytest.mark.parametrize("vocabulary", [250_002, 1_000_000, 10_000_000])
def test_an_engine_that_keeps_logits_bounds_a_sequence_by_them(vocabulary):
    asked = header(vocabulary=vocabulary, context=8_192)
    found = sequence_tokens_max(asked, pooling="cls", room=UPSTREAM)
    assert UBATCH_TOKENS_MIN <= found < 8_192
    assert found == UBATCH_TOKENS_MIN or found * vocabulary * 4 <= UPSTREAM.context_bytes


@pytest.mark.parametrize("room", [ROOM, UPSTREAM, Room(0, keeps_logits=False)])
@pytest.mark.parametrize("vocabulary", [1, 30_522, 250_002, 10_000_000])
@pytest.mark.parametrize("context", [16, 512, 8_192, 131_072])
@pytest.mark.parametrize(
    ("architecture", "pooling"), [("bert", "mean"), ("qwen3", "last"), ("qwen3", "mean")]
)
def test_the_engine_takes_every_sequence_that_is_allowed(
    vocabulary, context, architecture, pooling, room
):
    asked = header(vocabulary=vocabulary, context=context, architecture=architecture)
    limits = engine_limits(asked, pooling=pooling, room=room)
    longest = sequence_tokens_max(asked, pooling=pooling, room=room)
    assert longest <= limits.ubatch_tokens_max
    taken = context_bytes(asked, pooling=pooling, tokens=longest, room=room)
    assert taken <= room.context_bytes or longest == min(context, UBATCH_TOKENS_MIN)
    side = limits.side_tokens_max or limits.ubatch_tokens_max
    beside = context_bytes(asked, pooling=pooling, tokens=side, room=room)
    assert beside <= SIDE_CONTEXT_BYTES_MAX or side <= 512


@pytest.mark.parametrize("pooling", ["last", "rank"])
def test_a_decoder_takes_as_much_as_memory_has_cache_for(pooling):
    qwen3_06b = header(
        vocabulary=151_669, context=32_768, architecture="qwen3", blocks=28, inner=3072
    )
    assert sequence_tokens_max(qwen3_06b, pooling=pooling, room=ROOM) == 32_768
    small = Room(GB, keeps_logits=False)
    found = sequence_tokens_max(qwen3_06b, pooling=pooling, room=small)
    assert 8_000 < found < GB // (28 * 2 * 1024 * 2)
    assert context_bytes(qwen3_06b, pooling=pooling, tokens=found, room=small) <= GB
    assert context_bytes(qwen3_06b, pooling=pooling, tokens=found + 1, room=small) > GB


def test_a_decoder_that_pools_every_token_is_bounded_by_its_logits():
    qwen3_06b = header(vocabulary=151_669, context=32_768, architecture="qwen3", blocks=28)
    found = sequence_tokens_max(qwen3_06b, pooling="mean", room=Room(GB, keeps_logits=False))
    assert found * 4 * 151_669 <= GB


def test_a_files_limits_are_read_from_its_header(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, seed=1)
    found = read_header(path)
    assert sequence_tokens_max(found, pooling="mean", room=ROOM) == found.arch_int("context_length")
