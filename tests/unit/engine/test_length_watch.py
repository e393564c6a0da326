"""The first sequence of each length is computed alone, and one that kills the process comes once."""

import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from appliance import machine
from appliance.core.clock import SystemClock
from appliance.core.errors import EngineDied, InferenceFailed
from appliance.engine.backend import EngineLimits, ModelFacts
from appliance.engine.fake import FakeBackend, FakeWeights
from appliance.engine.length_watch import rounded
from appliance.engine.loader import LlamaLoader
from appliance.engine.screening import Screening
from appliance.engine.trial_record import Length
from appliance.sequences.sequence import TokenSequence
from appliance.settings import EngineSettings
from appliance.store.digests import Digests
from tests import decoders
from tests.models import write_tiny_gguf
from tests.server import ROOT
from tests.unit.engine.test_screening import spec_of
from tests.unit.engine.test_screening import trials as trials  # noqa: PLC0414 - a fixture

FACTS = ModelFacts(vocabulary=1000, width=4, tokens_max=8192, description="fake")
LIMITS = EngineLimits(ubatch_tokens_max=8192, max_batch_tokens=4096, sequences_max=64)
DIES = """
import os, signal, sys
from pathlib import Path
from tests.unit.engine import test_length_watch as here
from appliance.engine.screening import Screening
from appliance.store.digests import Digests

folder = Path(sys.argv[1])
spec = here.spec_of(folder / "tiny.gguf")
screening = Screening(folder / "trials", Digests(folder / "digests.json"))
backend = here.backend_of(screening, spec)
backend._backend.compute = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)
if "told to end" in sys.argv:
    screening.stop_watching()
backend.compute([here.sequence(3000)], threads=1)
"""


def sequence(length):
    return TokenSequence(np.full(length, length % 1000, np.int32), length, truncated=False)


def backend_of(screening, spec):
    weights = screening.watched(spec, FakeWeights(FACTS, LIMITS, [FakeBackend(FACTS, LIMITS)]))
    return weights.open_backend(LIMITS, flash_attention=None)


def inner(backend):
    return backend._backend


def marks(folder):
    return sorted(path.name.rpartition("-")[2] for path in (folder / "trials").glob("*.mark"))


@pytest.fixture
def start(tmp_path, trials):
    """Start again over one folder and one file that has passed its trial."""
    write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    made = []

    def start():
        spec = spec_of(tmp_path / "tiny.gguf")
        screening = Screening(tmp_path / "trials", Digests(tmp_path / "digests.json"))
        made.append(screening)
        screening.require(spec)
        return SimpleNamespace(
            screening=screening, spec=spec, backend=backend_of(screening, spec), folder=tmp_path
        )

    yield start
    for each in made:
        each.close()


def died(start, *arguments):
    """Let a process die with a sequence of 3,000 tokens; return the next start."""
    it = start()
    command = [sys.executable, "-c", DIES, str(it.folder), *arguments]
    end = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert end.returncode == -signal.SIGSEGV, end.stderr
    return it


@pytest.mark.parametrize(
    ("tokens", "wanted"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (8191, 8192)]
)
def test_lengths_are_proven_by_powers_of_two(tokens, wanted):
    assert rounded(tokens) == wanted


def test_a_longer_sequence_than_any_before_is_computed_alone_and_marked_meanwhile(start):
    it, seen = start(), []
    compute = inner(it.backend).compute

    def noted(sequences, *, threads):
        seen.append(([len(each) for each in sequences], marks(it.folder)))
        return compute(sequences, threads=threads)

    inner(it.backend).compute = noted
    texts = [sequence(10), sequence(100), sequence(20)]
    rows = it.backend.compute(texts, threads=1)
    assert seen == [([10], []), ([100], ["128.mark"]), ([20], [])]
    assert np.array_equal(rows, compute(texts))
    assert marks(it.folder) == []
    seen.clear()
    it.backend.compute([sequence(128), sequence(20)], threads=1)
    assert seen == [([128, 20], [])]  # this length is known by now, and after a restart too
    again = start()
    assert again.screening.known(again.spec).proven_tokens == 128
    again.backend.compute([sequence(128), sequence(20)], threads=1)
    assert inner(again.backend).computed == [[128, 20]]


def test_a_sequence_over_which_the_process_died_once_is_computed_once_more(start):
    it = died(start)
    assert marks(it.folder) == ["4096.mark"]
    again = start()
    again.backend.compute([sequence(3000)], threads=1)
    assert inner(again.backend).computed == [[3000]]
    assert marks(it.folder) == []
    assert again.screening.known(again.spec).crashed_tokens is None


def test_a_sequence_that_kills_the_process_twice_is_refused_from_the_next_start_on(start):
    died(start)
    it = died(start)
    assert marks(it.folder) == ["4096.mark"]
    again = start()
    for tokens in (3000, 4096, 8000):
        with pytest.raises(InferenceFailed, match=r"4,096 tokens crashed.*models try ID --long"):
            again.backend.compute([sequence(tokens)], threads=1)
    again.backend.compute([sequence(2048)], threads=1)
    assert inner(again.backend).computed == [[2048]]
    assert again.screening.known(again.spec).crashed_tokens == 4096
    assert marks(it.folder) == []
    with pytest.raises(InferenceFailed):  # the record says it now
        start().backend.compute([sequence(3000)], threads=1)


def test_a_length_over_which_a_process_of_the_models_own_died_twice_is_refused(start):
    it = start()
    screening, spec = it.screening, it.spec
    backend = backend_of(screening, spec)
    backend.compute([sequence(20)], threads=1)
    inner(backend).die = True
    for _ in range(2):
        with pytest.raises(EngineDied):
            backend.compute([sequence(3000)], threads=1)
    again = backend_of(screening, spec)  # what the next load opens
    with pytest.raises(InferenceFailed, match="tokens crashed"):
        again.compute([sequence(3000)], threads=1)
    assert again.compute([sequence(900)], threads=1).shape == (1, 4)


def test_a_batch_that_the_backend_refuses_leaves_no_mark_and_proves_nothing(start):
    it = start()
    inner(it.backend).refuse = True
    with pytest.raises(InferenceFailed):
        it.backend.compute([sequence(3000)], threads=1)
    assert marks(it.folder) == []
    assert it.screening.known(it.spec).proven_tokens == 64
    inner(it.backend).refuse = False
    it.backend.compute([sequence(3000)], threads=1)


def test_a_process_that_was_told_to_end_accuses_nobody(start):
    it = died(start, "told to end")
    assert marks(it.folder) == []
    start().backend.compute([sequence(3000)], threads=1)


def test_the_end_of_the_machine_accuses_nobody(start, monkeypatch):
    it = died(start)
    died(start)
    monkeypatch.setattr(machine, "boot_id", lambda: "another")
    again = start()
    again.backend.compute([sequence(3000)], threads=1)
    assert marks(it.folder) == []


def test_a_long_trial_that_passes_lets_a_loaded_model_compute_again(start, trials, monkeypatch):
    died(start)
    died(start)
    again = start()
    with pytest.raises(InferenceFailed):
        again.backend.compute([sequence(3000)], threads=1)
    run = trials.run

    def passed(trial, *, long=False):
        run(trial, long=long)
        trial.lengths = [Length(4096, 1.0, 1)]

    monkeypatch.setattr(trials, "run", passed)
    again.screening.begin(again.spec, fresh=True, long=True).done.result(60)
    again.backend.compute([sequence(3000)], threads=1)
    assert again.screening.known(again.spec).crashed_tokens is None
    assert again.screening.known(again.spec).proven_tokens == 4096


def test_two_workers_do_not_prove_a_length_at_the_same_time(start):
    it = start()
    weights = it.screening.watched(
        it.spec, FakeWeights(FACTS, LIMITS, [FakeBackend(FACTS, LIMITS) for _ in range(2)])
    )
    backends = [weights.open_backend(LIMITS, flash_attention=None) for _ in range(2)]
    inner(backends[0]).gate.clear()
    threads = [
        threading.Thread(target=each.compute, args=([sequence(3000)],), kwargs={"threads": 1})
        for each in backends
    ]
    threads[0].start()
    while not marks(it.folder):
        threads[0].join(0.01)
    threads[1].start()
    threads[1].join(0.2)
    assert inner(backends[1]).computed == []
    inner(backends[0]).gate.set()
    for thread in threads:
        thread.join(30)
    assert inner(backends[1]).computed == [[3000]]


def test_a_disk_without_room_for_a_mark_keeps_nobody_from_computing(start, monkeypatch):
    it = start()

    def full(*_):
        raise OSError(28, "no space")

    monkeypatch.setattr("appliance.engine.length_watch.write_private", full)
    monkeypatch.setattr("appliance.engine.trial_record.write_private", full)
    it.backend.compute([sequence(3000)], threads=1)
    assert inner(it.backend).computed == [[3000]]


def test_real_weights_compute_the_same_when_they_are_watched(tmp_path):
    spec = spec_of(decoders.write_decoder(tmp_path / "tiny.gguf", decoders.weights(seed=1)))
    screening = Screening(tmp_path / "trials", Digests(None))
    settings, clock = EngineSettings(calibrate=False), SystemClock()
    texts = [sequence(length) for length in (5, 100, 30)]
    found = []
    for options in ({}, {"screen": screening.require, "watch": screening.watched}):
        loader = LlamaLoader(settings, cores=1, tunings=None, clock=clock, **options)
        model = loader.open_model(spec)
        limits = model.tuning.worker_limits(model.weights.limits, worker=0)
        backend = model.weights.open_backend(limits, flash_attention=None)
        found.append(np.concatenate([backend.compute([text], threads=1) for text in texts]))
        backend.close()
        model.weights.close()
    assert np.array_equal(*found)
    assert screening.known(spec).proven_tokens == 128
    screening.close()
