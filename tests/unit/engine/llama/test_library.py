"""What llama.cpp keeps in one place for the whole process is asked for by one thread."""

import os
import subprocess
import sys

import numpy as np

from tests.kernels import supported
from tests.server import ROOT

CODE = """
import threading
from concurrent.futures import ThreadPoolExecutor

import llama_cpp

asked, lock = [], threading.Lock()
native = llama_cpp.llama_print_system_info


def watched():
    # Two threads that are in it at the same time free one string twice.
    assert lock.acquire(blocking=False), "two threads ask at the same time"
    asked.append(threading.current_thread().name)
    threading.Event().wait(0.05)
    told = native()
    lock.release()
    return told


llama_cpp.llama_print_system_info = watched
from appliance.engine.llama import library
from appliance.engine.llama.native_threads import NativeThreads

gate = threading.Barrier(6)


def ask(what):
    gate.wait(30)
    return what()


with ThreadPoolExecutor(6) as threads:
    asks = [library.build, library.facts, NativeThreads] * 2
    answers = [each.result(60) for each in [threads.submit(ask, what) for what in asks]]
assert answers[0] == answers[3]
assert answers[1]["features"] in answers[0]
print(len(asked))
"""


def test_what_the_build_can_do_is_asked_once_however_many_threads_want_it():
    end = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (end.returncode, end.stdout.strip()) == (0, "1"), end.stderr


QUANTIZED = """
import ctypes, sys
from pathlib import Path

import llama_cpp
import numpy as np

from appliance.catalog import catalog
from appliance.engine.backend import EngineLimits
from appliance.engine.llama.weights import LlamaWeights
from appliance.sequences.sequence import TokenSequence

spec = catalog.load(catalog.shipped_path(), Path("none.toml"), Path()).find("all-minilm-l6-v2")
silent = llama_cpp.llama_log_callback(lambda *said: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p())
asked = llama_cpp.llama_model_quantize_default_params()
asked.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
path = Path(sys.argv[1], "q8_0.gguf")
assert llama_cpp.llama_model_quantize(str(spec.path).encode(), str(path).encode(), asked) == 0
limits = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
weights = LlamaWeights(path, pooling="mean", limits=limits, segments=None)
backend = weights.open_backend(weights.limits, flash_attention=None)
rng = np.random.default_rng(5)
for length in (3, 12, 40, 200):
    tokens = rng.integers(1000, 30_000, length).astype(np.int32)
    row = backend.compute([TokenSequence(tokens, length, truncated=False)], threads=2)[0]
    print(*row)
"""


def quantized_rows(folder, kernels):
    environment = {**os.environ, "GIGAROUTER_KERNELS": kernels}
    end = subprocess.run(
        [sys.executable, "-c", QUANTIZED, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    assert end.returncode == 0, (kernels, end.returncode, end.stderr[-2000:])
    return np.array([line.split() for line in end.stdout.splitlines()], np.float64)


def cosines(one, two):
    return (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


def test_a_quantized_file_has_one_vector_of_a_text_on_every_instruction_set(tmp_path):
    """llama.cpp's own kernels round activations to bytes, and are that much further off.

    A process of its own for each: the layout of weights is chosen when they are loaded.
    """
    widest, *narrower = supported()
    ours = quantized_rows(tmp_path, widest)
    assert ours.shape == (4, 384)
    for kernels in narrower:
        assert cosines(ours, quantized_rows(tmp_path, kernels)).min() >= 0.999999, kernels
    assert cosines(ours, quantized_rows(tmp_path, "none")).min() >= 0.999
