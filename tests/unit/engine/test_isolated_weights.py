"""A model in a process of its own computes the same bits, and its death stays its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from appliance.catalog.header_parser import read_header
from appliance.core.clock import SystemClock
from appliance.core.errors import EngineDied, InferenceFailed, LoadFailed
from appliance.engine import child_channel
from appliance.engine.backend import EngineLimits
from appliance.engine.child_channel import (
    Answer,
    limit_silence,
    open_memory,
    receive,
    receive_answer,
)
from appliance.engine.isolated_weights import IsolatedWeights
from appliance.engine.isolation import Isolation
from appliance.engine.load_progress import LoadProgress
from appliance.engine.loader import LlamaLoader
from appliance.engine.weights_order import WeightsOrder, open_here
from appliance.machine import NICE
from appliance.settings import EngineSettings, keep_numpy_single_threaded
from tests import decoders
from tests.encoders import write_wide_bert
from tests.models import HIDDEN, write_tiny_gguf
from tests.server import ROOT
from tests.unit.engine.test_llama import STARTER, noise, spec_of, words

LIMITS = EngineLimits(ubatch_tokens_max=256, max_batch_tokens=256, sequences_max=64)
PROC = Path("/proc")
ENDED_S = 20.0

needs_proc = pytest.mark.skipif(not PROC.exists(), reason="threads are counted in /proc")


def loader(mode):
    settings = EngineSettings(calibrate=False)
    isolation = Isolation(mode, 60.0)
    return LlamaLoader(settings, cores=1, tunings=None, clock=SystemClock(), isolation=isolation)


def order_of(path, **changes):
    order = WeightsOrder(str(path), "mean", LIMITS, segments=False)
    return WeightsOrder(**{**{f: getattr(order, f) for f in order.__struct_fields__}, **changes})


def opened(path, *, batch_seconds_max=60.0, **changes):
    return IsolatedWeights(
        order_of(path, **changes), name="tiny", batch_seconds_max=batch_seconds_max
    )


@pytest.fixture
def path(tmp_path):
    return write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)


@pytest.fixture
def weights(path):
    weights = opened(path)
    yield weights
    weights.close()


@needs_proc
def test_what_loads_gives_way_and_what_computes_does_not(path, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    keep_numpy_single_threaded()
    here = os.nice(0)
    weights = opened(path)
    backend = backend_of(weights)
    try:
        backend.compute([words(5)], threads=2)
        niceness = {
            int(task.name): int((task / "stat").read_text().rpartition(")")[2].split()[16])
            for task in (PROC / str(weights.child.pid) / "task").iterdir()
        }
    finally:
        backend.close()
        weights.close()
    assert niceness.pop(weights.child.pid) == min(19, here + NICE)
    assert len(niceness) >= 2
    assert set(niceness.values()) == {here}


def backend_of(weights):
    return weights.open_backend(LIMITS, flash_attention=None)


def has_ended(pid):
    """Return whether a process is gone within some seconds; one that nobody has waited for is."""
    deadline = time.monotonic() + ENDED_S
    while time.monotonic() < deadline:
        try:
            if (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# -- computing ----------------------------------------------------------------------------------


def computed(spec, mode, batches, *, threads):
    weights = loader(mode).open_weights(spec)
    try:
        backend = weights.open_backend(weights.limits, flash_attention=None)
        try:
            return weights.facts, [backend.compute(batch, threads=threads) for batch in batches]
        finally:
            backend.close()
    finally:
        weights.close()


BATCHES = [
    [noise(1)],
    [noise(9, seed=1), noise(60, seed=2), noise(2, seed=3)],
    [noise(12, seed=seed) for seed in range(20)],
    [noise(256, seed=4)],
    [noise(9), replace(noise(100, seed=5), parts=(1,) * 90 + (10,)), noise(3)],
    [replace(noise(7), parts=(3, 4)), replace(noise(8), parts=(8,))],
]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_starter_model_gets_the_same_vectors_bit_for_bit(threads):
    here, there = (
        computed(STARTER, mode, BATCHES, threads=threads) for mode in ("none", "process")
    )
    assert here[0] == there[0]
    for expected, found in zip(here[1], there[1], strict=True):
        assert found.dtype == np.float32
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["decoder", "cross-encoder", "segments"])
def test_other_kinds_get_the_same_rows_bit_for_bit(tmp_path, kind):
    if kind == "decoder":
        tensors = decoders.weights(seed=1)
        spec = spec_of(decoders.write_decoder(tmp_path / "tiny.gguf", tensors))
    else:
        path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=2, labels=1)
        spec = spec_of(path, segments=kind == "segments")
    batches = [[replace(words(*range(5, 14)), segment_b=4)], [words(*range(5, 35)), words(6, 7)]]
    here, there = (computed(spec, mode, batches, threads=1) for mode in ("none", "process"))
    assert here[0] == there[0]
    assert [rows.tobytes() for rows in here[1]] == [rows.tobytes() for rows in there[1]]


def test_workers_compute_at_the_same_time_each_with_its_own_context(weights, path):
    batches = [[words(*range(5, 5 + length))] for length in range(2, 40)]
    alone = open_here(order_of(path))
    reference = backend_of(alone)
    expected = [reference.compute(batch, threads=1).tobytes() for batch in batches]
    reference.close()
    alone.close()

    def work(_):
        backend = backend_of(weights)
        found = [backend.compute(batch, threads=1).tobytes() for batch in batches]
        backend.close()
        return found

    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(work, range(4)):
            assert found == expected


def test_a_batch_that_is_refused_leaves_the_next_one_alone(path):
    rows = read_header(path).tensors["token_embd.weight"]
    raw = bytearray(path.read_bytes())
    at = rows.offset + 40 * HIDDEN * 2
    raw[at : at + 2] = np.array([np.nan], "<f2").tobytes()
    path.write_bytes(raw)
    weights = opened(path)
    backend = backend_of(weights)
    with pytest.raises(InferenceFailed, match="not finite"):
        backend.compute([words(1, 40, 2)], threads=1)
    assert np.isfinite(backend.compute([words(1, 41, 2)], threads=1)).all()
    backend.close()
    weights.close()


# -- death --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_death_is_an_error_of_this_model_alone(weights, path, name):
    other = opened(path)
    backend, neighbour = backend_of(weights), backend_of(other)
    before = neighbour.compute([words(5, 6)], threads=1)
    os.kill(weights.child.pid, getattr(signal, name))
    assert has_ended(weights.child.pid)
    with pytest.raises(EngineDied, match=f"its process was ended by {name}"):
        backend.compute([words(5, 6)] * 60, threads=1)
    with pytest.raises(LoadFailed, match=name):
        backend_of(weights)
    assert (neighbour.compute([words(5, 6)], threads=1) == before).all()
    backend.close()
    neighbour.close()
    other.close()


@needs_proc
def test_a_process_that_hangs_is_ended(path):
    weights = opened(path, batch_seconds_max=0.5)
    backend = backend_of(weights)
    os.kill(weights.child.pid, signal.SIGSTOP)
    while "\nState:\tT" not in (PROC / str(weights.child.pid) / "status").read_text():
        time.sleep(0.01)  # the signal is on its way
    with pytest.raises(EngineDied, match=r"a batch took longer than 0\.5 s"):
        backend.compute([words(5, 6)], threads=1)
    assert has_ended(weights.child.pid)
    backend.close()
    weights.close()


def test_a_death_while_nothing_is_computed_is_told_at_once(weights):
    told, heard = [], threading.Event()
    weights.notify(lambda error: (told.append(error.message), heard.set()))
    os.kill(weights.child.pid, signal.SIGKILL)
    assert heard.wait(ENDED_S)
    assert told == ["its process was ended by SIGKILL"]


@needs_proc
def test_closing_ends_the_process_and_is_no_death(path):
    weights = opened(path)
    told = []
    weights.notify(told.append)
    pid = weights.child.pid
    backend_of(weights).close()
    weights.close()
    assert not (PROC / str(pid)).exists()
    assert told == []


@needs_proc
def test_the_process_ends_with_the_server_even_if_it_is_killed(path):
    program = f"""
        import os, signal, sys
        from tests.unit.engine.test_isolated_weights import opened
        weights = opened({str(path)!r})
        os.kill(weights.child.pid, signal.SIGSTOP)  # it cannot see the socket close
        print(weights.child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert has_ended(int(done.stdout))


@needs_proc
def test_nothing_that_the_server_has_open_is_open_there(path, tmp_path):
    with (
        (tmp_path / "secret").open("wb") as secret,
        socket.socket() as listening,
    ):
        listening.bind(("127.0.0.1", 0))
        for each in (secret, listening):
            os.set_inheritable(each.fileno(), True)
        weights = opened(path)
        folder = PROC / str(weights.child.pid)
        there = {str(fd.readlink()) for fd in (folder / "fd").iterdir()}
        mine = {str((PROC / "self/fd" / str(f.fileno())).readlink()) for f in (secret, listening)}
        assert not there & mine
        assert len([each for each in there if each.startswith("socket:")]) == 1
        [core] = re.findall(r"Max core file size +(\d+) +(\d+)", (folder / "limits").read_text())
        assert core == ("0", "0")
        assert os.getpgid(weights.child.pid) == weights.child.pid
        weights.close()


# -- loading ------------------------------------------------------------------------------------


def test_a_file_that_is_damaged_is_refused_with_its_name(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(LoadFailed, match=r"tiny\.gguf could not be loaded"):
        opened(path)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
@pytest.mark.parametrize("room", [1, 140, 200, 260])
def test_a_load_without_memory_is_a_refusal_that_says_so(tmp_path, room):
    """Wherever in the load memory runs out: each row has more of it than the one before."""
    path = write_wide_bert(tmp_path / "wide.gguf", tokens=400_000, context=64, seed=1)
    assert path.stat().st_size > 50_000_000
    with pytest.raises(LoadFailed, match="there is no memory for it"):
        opened(path, memory_bytes=room << 20)


def test_a_load_that_nobody_wants_any_more_ends_and_leaves_no_process(path):
    progress = LoadProgress()
    progress.cancel()
    with pytest.raises(LoadFailed, match="not wanted"):
        IsolatedWeights(order_of(path), name="tiny", batch_seconds_max=60.0, progress=progress)


def test_a_load_says_how_far_it_is(path):
    progress = LoadProgress()
    weights = IsolatedWeights(
        order_of(path), name="tiny", batch_seconds_max=60.0, progress=progress
    )
    assert progress.fraction == 1.0
    weights.close()


@pytest.mark.parametrize("tokens", [1, 2, 63, 65, 100, 353, 401, 472, 511])
def test_a_context_of_any_size_can_be_opened_and_filled(tokens):
    """A machine with little memory takes whatever there is room for; in the server it aborted."""
    limits = EngineLimits(tokens, min(256, tokens), sequences_max=64)
    order = WeightsOrder(str(STARTER.path), "mean", limits, segments=False)
    weights = IsolatedWeights(order, name="starter", batch_seconds_max=60.0)
    backend = weights.open_backend(limits, flash_attention=None)
    assert backend.compute([noise(tokens)], threads=1).shape == (1, 384)
    count = min(64, tokens)
    assert backend.compute([noise(1, seed=n) for n in range(count)], threads=1).shape[0] == count
    backend.close()
    weights.close()


# -- what is not trusted ------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory is read in /proc")
def test_the_process_cannot_take_the_memory_away_under_the_server():
    descriptor = open_memory(LIMITS, 32)
    for size in (0, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff", b"\x02\x00\x00\x00[]", b"\x04\x00\x00\x00\xff\xfe\xfd\xfc"]
)
def test_what_is_no_answer_ends_the_talk(said):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        limit_silence(ours, 0.2)
        with pytest.raises((ConnectionError, BlockingIOError)):
            receive_answer(ours)
        theirs.sendall(said)
        with pytest.raises((ConnectionError, BlockingIOError)):
            receive(ours, Answer)
    assert child_channel.FRAME_BYTES_MAX < 1 << 20


# -- which models -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "own", "starter", "foreign"),
    [
        ("auto", None, False, True),
        ("process", None, True, True),
        ("none", None, False, False),
        ("auto", "none", False, False),
        ("none", "process", True, True),
    ],
)
def test_the_setting_chooses_and_a_models_own_entry_comes_first(path, mode, own, starter, foreign):
    isolation = Isolation(mode, 60.0)
    changes = {} if own is None else {"isolation": own}
    assert isolation.applies(spec_of(path, **changes)) is foreign
    if own is None:
        assert isolation.applies(STARTER) is starter
