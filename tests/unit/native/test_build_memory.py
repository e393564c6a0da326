"""What our build of the engine saves: logits that nobody reads, and memory that nobody has used."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from appliance.engine.backend import EngineLimits
from appliance.sequences.sequence import TokenSequence
from appliance.settings import prepare_native_library
from tests import decoders, encoders

_llama = llama_cpp.llama_cpp._lib
# Where packaging/environment.sh built the engine on Linux, it has what is tested here.
expected = Path(sys.prefix, ".engine").exists() and sys.platform == "linux"
ours = hasattr(_llama, "gigarouter_engine")
pytestmark = pytest.mark.skipif(not (ours or expected), reason="an engine with its own kernels")

MB = 1 << 20
WORDS = 250_002
LONGEST = 8192


def taken():
    """Bytes of memory of this process that no file stands behind."""
    found = re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


def opened(path, pooling, longest):
    prepare_native_library()
    from appliance.engine.llama.weights import LlamaWeights

    limits = EngineLimits(longest, 256, 64)
    weights = LlamaWeights(path, pooling=pooling, limits=limits, segments=None)
    return weights, limits


def noise(count, words):
    tokens = np.random.default_rng(0).integers(5, words, count).astype(np.int32)
    return TokenSequence(tokens, count, truncated=False)


def test_the_longest_sequence_of_a_large_vocabulary_takes_no_logits(tmp_path):
    shape = encoders.Shape(WORDS, width=32, inner=64, blocks=2, context=LONGEST)
    tensors = encoders.xlmr_weights(shape, seed=1)
    path = encoders.write_xlmr(tmp_path / "wide.gguf", tensors, shape)
    weights, limits = opened(path, "rank", LONGEST)
    before = taken()
    backend = weights.open_backend(limits, flash_attention=None)
    long = noise(LONGEST, 50)
    [row] = backend.compute([long], threads=2)
    # Logits would be 8.2 GB; the mask of who sees whom is 128 MB.
    assert taken() - before < 400 * MB
    backend.close()
    weights.close()
    assert row[0] == pytest.approx(encoders.xlmr_logit(tensors, long.tokens, shape), abs=2e-3)


def test_a_context_takes_the_memory_of_its_cache_when_it_is_used(tmp_path):
    shape = decoders.Shape(context=32_768, blocks=2, width=64, kv_heads=4, head=128)
    tensors = decoders.weights(shape, seed=1)
    weights, limits = opened(
        decoders.write_decoder(tmp_path / "long.gguf", tensors, shape), "last", shape.context
    )
    before = taken()
    backend = weights.open_backend(limits, flash_attention=None)
    assert taken() - before < 16 * MB, "the cache is 128 MB"
    words = len(decoders.VOCABULARY)
    short, long = noise(20, words), noise(3000, words)
    first = backend.compute([short], threads=1)
    backend.compute([long], threads=2)
    used = taken()
    assert np.array_equal(backend.compute([short], threads=1), first), "nothing of it is left"
    backend._tainted = True  # as after a failed batch: the cache is wiped
    assert np.array_equal(backend.compute([short], threads=1), first)
    assert taken() < used - 8 * MB, "what is wiped is given back"
    backend.close()
    weights.close()


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("size", [1, 100, 4096, 3 * MB + 5])
def test_a_cleared_buffer_holds_the_value_from_its_first_byte_to_its_last(size, value):
    base = ctypes.CDLL(str(next(Path(_llama._name).parent.glob("libggml-base.*"))))
    for name, arguments in (
        ("ggml_backend_cpu_buffer_type", ()),
        ("ggml_backend_buft_alloc_buffer", (ctypes.c_void_p, ctypes.c_size_t)),
        ("ggml_backend_buffer_get_base", (ctypes.c_void_p,)),
    ):
        function = getattr(base, name)
        function.restype, function.argtypes = ctypes.c_void_p, arguments
    buffer = base.ggml_backend_buft_alloc_buffer(base.ggml_backend_cpu_buffer_type(), size)
    start = base.ggml_backend_buffer_get_base(ctypes.c_void_p(buffer))
    ctypes.memset(start, 0xAB, size)
    clear = _llama.__wrap_ggml_backend_buffer_clear
    clear.restype, clear.argtypes = None, (ctypes.c_void_p, ctypes.c_uint8)
    clear(buffer, value)
    assert ctypes.string_at(start, size) == bytes([value]) * size
    base.ggml_backend_buffer_free.argtypes = (ctypes.c_void_p,)
    base.ggml_backend_buffer_free(buffer)


def test_the_doctor_can_say_whose_memory_it_is():
    from appliance.engine.devices import native_facts, native_keeps_logits

    assert native_facts()["memory"] == "gigarouter's"
    assert native_keeps_logits() is False


def test_an_engine_that_cannot_be_loaded_promises_nothing_it_cannot_keep(tmp_path):
    """The question is asked by commands that load no engine otherwise."""
    (tmp_path / "llama_cpp.py").write_text("raise ImportError('no engine')")
    code = "from appliance.engine.devices import native_keeps_logits; print(native_keeps_logits())"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "False\n", ran.stderr
