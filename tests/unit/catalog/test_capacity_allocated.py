"""What a decoder's context is said to take is what the library allocates when it is opened."""

import logging
import re
from dataclasses import replace

import pytest

from appliance.catalog.capacity import Room, context_bytes
from appliance.catalog.header_parser import read_header
from appliance.engine.backend import EngineLimits
from appliance.engine.devices import native_keeps_logits
from appliance.settings import prepare_native_library
from tests import decoders, encoders

MB = 1 << 20
CONTEXT = 8192
WORDS = 5_000
QWEN3 = decoders.Shape(WORDS, 256, 8, 4, 64, 768, 8, CONTEXT)
EVEN = replace(QWEN3, head=32)
"""Queries are as wide as the model, as these architectures want it."""
SHAPES = {
    "qwen3": QWEN3,
    "qwen2": replace(EVEN, architecture="qwen2"),
    "llama": replace(EVEN, architecture="llama", kv_heads=8),
    "gemma3": decoders.Shape(
        WORDS, 256, 4, 1, 256, 1024, 12, CONTEXT, architecture="gemma3", window=512
    ),
}
BUFFER = re.compile(r"(output|KV|compute) buffer size\s*=\s*([\d.]+) MiB")


@pytest.fixture(scope="module", params=SHAPES)
def path(request, tmp_path_factory):
    shape = SHAPES[request.param]
    path = tmp_path_factory.mktemp("decoders") / f"{request.param}.gguf"
    tokenizer = encoders.widened(decoders.BPE, shape.vocabulary)
    return decoders.write_decoder(path, decoders.weights(shape, seed=1), shape, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("pooling", "tokens"),
    [("last", 512), ("last", 2048), ("last", CONTEXT), ("mean", 512), ("mean", 2048)],
)
def test_a_contexts_estimate_is_what_is_allocated_for_its_longest_sequence(
    path, pooling, tokens, caplog
):
    prepare_native_library()
    from appliance.engine.llama.weights import LlamaWeights

    limits = EngineLimits(tokens, 256, 64)
    weights = LlamaWeights(path, pooling=pooling, limits=limits, segments=None)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "gigarouter.llama"):
        backend = weights.open_backend(limits, flash_attention=None)
    backend.close()
    weights.close()
    sizes = [float(size) for _, size in BUFFER.findall(caplog.text)]
    assert len(sizes) >= 3
    room = Room(1 << 40, keeps_logits=native_keeps_logits())
    said = context_bytes(read_header(path), pooling=pooling, tokens=tokens, room=room)
    assert said / MB == pytest.approx(sum(sizes), rel=0.1)
