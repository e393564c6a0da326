"""Calibration of weights whose speed is known, on a clock that they alone move."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from appliance.catalog import catalog
from appliance.core.clock import SystemClock
from appliance.core.errors import InferenceFailed, LoadFailed
from appliance.engine.backend import EngineLimits, ModelFacts, require_computable
from appliance.engine.calibration import BUDGET_NS, SLICE_NS, calibrate
from appliance.engine.loader import LlamaLoader
from appliance.engine.tuning import Tuning, default_tuning
from appliance.settings import EngineSettings

FACTS = ModelFacts(vocabulary=1000, width=4, tokens_max=512, description="fake")
LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
TOKEN_NS = 50_000
CORES = 4


class ThreadsClock:
    """Each thread has a time of its own; the thread that waits for others has the latest."""

    def __init__(self):
        self._main = threading.get_ident()
        self._times = {self._main: 0}
        self._lock = threading.Lock()

    def wall_us(self):
        return 0

    def monotonic_ns(self):
        with self._lock:
            return self._now()

    def advance(self, elapsed_ns):
        with self._lock:
            self._times[threading.get_ident()] = self._now() + int(elapsed_ns)

    def _now(self):
        own = threading.get_ident()
        if own == self._main:
            self._times = {own: max(self._times.values())}
        return max(self._times.get(own, 0), self._times[self._main])


class TimedBackend:
    def __init__(self, weights, limits, flash_attention):
        self.limits = limits
        self.flash_attention = flash_attention
        self.thread = threading.get_ident()
        self._weights = weights

    def compute(self, sequences, *, threads):
        assert threading.get_ident() == self.thread
        tokens = len(require_computable(sequences, self.limits, FACTS))
        weights = self._weights
        weights.asked.append((tokens, threads))
        weights.clock.advance(weights.cost_ns(tokens, threads, self.flash_attention))
        return np.zeros((len(sequences), 4), np.float32)

    def close(self):
        assert threading.get_ident() == self.thread
        self._weights.open -= 1


class TimedWeights:
    """Weights with room for `room` backends, each batch of which costs what `cost_ns` says."""

    facts = FACTS

    def __init__(self, cost_ns, *, room=100, limits=LIMITS):
        self.clock = ThreadsClock()
        self.cost_ns = cost_ns
        self.limits = limits
        self.asked = []
        self.open = 0
        self._room = room

    def open_backend(self, limits, *, flash_attention):
        if self.open >= self._room:
            raise LoadFailed("no room")
        self.open += 1
        return TimedBackend(self, limits, flash_attention)

    def close(self):
        pass


def plain(tokens, threads, _flash):
    """Threads share the work without loss, and batches cost what their tokens do."""
    return TOKEN_NS * tokens / threads


def calibrated(cost_ns=plain, *, cores=CORES, **options):
    weights = TimedWeights(cost_ns, **options)
    found = calibrate(weights, cores=cores, clock=weights.clock)
    assert weights.open == 0
    return found


def usual(**changes):
    facts = {
        "workers": CORES,
        "threads": 1,
        "threads_alone": CORES,
        "max_batch_tokens": 256,
        "flash_attention": None,
        "origin": "calibrated",
    }
    return Tuning(**{**facts, **changes})


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
def test_where_nothing_is_faster_than_the_usual_it_stays(cores):
    found = calibrated(cores=cores)
    workers = min(cores, 8)
    assert found == usual(workers=workers, threads=cores // workers, threads_alone=cores)


@pytest.mark.parametrize(
    ("gain", "flash"), [(0.5, False), (0.95, False), (0.97, None), (1.5, None)]
)
def test_flash_attention_is_off_where_that_is_clearly_faster(gain, flash):
    found = calibrated(lambda n, t, f: plain(n, t, f) * (gain if f is False else 1))
    assert found == usual(flash_attention=flash)


@pytest.mark.parametrize(
    ("best", "gain", "alone"), [(1, 0.5, 1), (2, 0.8, 2), (2, 0.9, 4), (1, 0.95, 4)]
)
def test_one_short_text_has_as_many_threads_as_make_it_much_faster(best, gain, alone):
    def cost(tokens, threads, flash):
        if tokens == 16:
            return TOKEN_NS * tokens * (gain if threads == best else 1)
        return plain(tokens, threads, flash)

    assert calibrated(cost) == usual(threads_alone=alone)


@pytest.mark.parametrize(
    ("extra", "max_batch_tokens"),
    [
        pytest.param(lambda _: 60 * TOKEN_NS, 256, id="a call is dear"),
        pytest.param(lambda _: 5 * TOKEN_NS, 256, id="a call costs little"),
        pytest.param(lambda tokens: TOKEN_NS * tokens**2 / 1000, 128, id="attention is dear"),
        pytest.param(lambda tokens: TOKEN_NS * tokens**2 / 5000, 256, id="attention costs little"),
    ],
)
def test_batches_are_as_large_as_makes_them_clearly_faster(extra, max_batch_tokens):
    found = calibrated(lambda n, t, f: plain(n, t, f) + extra(n))
    assert found == usual(max_batch_tokens=max_batch_tokens)


@pytest.mark.parametrize(("best", "gain", "workers"), [(1, 0.8, 1), (2, 0.8, 2), (1, 0.97, 4)])
def test_workers_are_as_many_as_are_clearly_faster_together(best, gain, workers):
    def cost(tokens, threads, flash):
        together = tokens == 256 and threads == CORES // best
        return plain(tokens, threads, flash) * (gain if together else 1)

    assert calibrated(cost) == usual(workers=workers, threads=CORES // workers)


def test_what_is_fastest_together_is_chosen_together():
    def cost(tokens, threads, flash):
        best = tokens == 128 and threads == 2
        return plain(tokens, threads, flash) * (0.7 if best else 1)

    assert calibrated(cost) == usual(workers=2, threads=2, max_batch_tokens=128)


@pytest.mark.parametrize(("room", "workers"), [(2, 2), (1, 1)])
def test_where_memory_has_room_for_fewer_workers_there_are_fewer(room, workers):
    assert calibrated(room=room) == usual(workers=workers, threads=CORES // workers)


def test_without_room_for_one_backend_the_model_cannot_be_loaded():
    with pytest.raises(LoadFailed, match="no room"):
        calibrated(room=0)


def test_a_model_that_takes_short_texts_alone_is_measured_with_these():
    weights = TimedWeights(plain, limits=EngineLimits(256, 256, 64))
    weights.facts = replace(FACTS, tokens_max=32)
    assert calibrate(weights, cores=CORES, clock=weights.clock) == usual()
    assert {tokens for tokens, _ in weights.asked} == {16, 64, 128, 256}


def test_a_model_that_cannot_compute_says_so_and_leaves_nothing_open():
    def cost(tokens, threads, flash):
        raise InferenceFailed("no")

    weights = TimedWeights(cost)
    with pytest.raises(InferenceFailed):
        calibrate(weights, cores=CORES, clock=weights.clock)
    assert weights.open == 0


def test_a_model_so_large_that_a_contest_would_take_minutes_has_the_usual_tuning():
    weights = TimedWeights(lambda n, t, _: 3_000_000 * n / t)
    assert calibrate(weights, cores=CORES, clock=weights.clock) == default_tuning(CORES)
    assert weights.asked == [(64, 1)]


def test_a_contest_that_takes_too_long_is_given_up():
    """What was found until then may be a neighbour's doing: it is measured again."""
    weights = TimedWeights(lambda n, *_: 2_400_000 * n)
    assert calibrate(weights, cores=CORES, clock=weights.clock) is None
    assert weights.clock.monotonic_ns() < BUDGET_NS + 2_000_000_000


def test_on_a_busy_machine_nothing_is_believed():
    random = np.random.default_rng(1)

    def cost(tokens, threads, flash):
        return plain(tokens, threads, flash) * random.uniform(1, 5)

    assert calibrated(cost) is None


@pytest.mark.parametrize("rounds", [0, 1, 7, 20])
def test_a_contest_that_nobody_wants_any_more_ends_before_its_next_round(rounds):
    weights = TimedWeights(plain)
    left = iter(range(rounds))
    tuning = calibrate(
        weights,
        cores=CORES,
        clock=weights.clock,
        is_wanted=lambda: next(left, None) is not None,
    )
    assert tuning is None
    assert weights.open == 0
    # One round of every worker, and the batch that tells whether the model is a large one.
    assert weights.clock.monotonic_ns() < (rounds + 1) * 2 * SLICE_NS


# -- the real thing -----------------------------------------------------------------------------


def test_the_starter_is_measured_once_and_remembered(tmp_path, monkeypatch):
    none = Path("none.toml")
    starter = catalog.load(catalog.shipped_path(), none, Path("none")).find("all-minilm-l6-v2")
    loader = LlamaLoader(EngineSettings(), cores=2, tunings=tmp_path, clock=SystemClock())
    # On a busy machine nothing is kept; how busy this one is shall not matter here.
    monkeypatch.setattr("appliance.engine.calibration.ROUND_SPREAD_MAX", 1000.0)
    monkeypatch.setattr("appliance.engine.calibration.BUDGET_NS", 120 * 10**9)
    model = loader.open_model(starter)
    assert model.tuning.origin == "default"
    assert loader.is_measurable(starter)
    tuning = loader.measure_tuning(starter, model.weights)
    model.weights.close()
    assert tuning.origin == "calibrated"
    assert (tuning.workers, tuning.threads) in {(1, 2), (2, 1)}
    assert tuning.threads_alone in {1, 2}
    assert tuning.max_batch_tokens in {128, 256}
    assert tuning.flash_attention in {None, False}
    assert len(list(tmp_path.iterdir())) == 1

    again = loader.open_model(starter)
    again.weights.close()
    assert again.tuning == tuning
    assert not loader.is_measurable(starter)
    other = LlamaLoader(EngineSettings(), cores=3, tunings=tmp_path, clock=SystemClock())
    assert other.is_measurable(starter)
    assert not LlamaLoader(
        EngineSettings(calibrate=False), cores=3, tunings=tmp_path, clock=SystemClock()
    ).is_measurable(starter)
    quick = LlamaLoader(
        EngineSettings(calibrate=False, workers=1), cores=2, tunings=tmp_path, clock=SystemClock()
    ).open_model(starter)
    quick.weights.close()
    assert (quick.tuning.workers, quick.tuning.threads, quick.tuning.origin) == (1, 2, "settings")
