"""Calibration: which tuning is fastest for this model on this machine.

Owns a short measurement: candidates compute the same sequences in turns, and one that is not
clearly faster than the default loses to it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

import numpy as np

from appliance.core.clock import Clock
from appliance.core.errors import LoadFailed
from appliance.engine.backend import Backend, EngineLimits, Weights
from appliance.engine.tuning import MAX_BATCH_TOKENS, WORKERS_MAX, Tuning, default_tuning
from appliance.sequences.sequence import TokenSequence

K = TypeVar("K")

log = logging.getLogger("gigarouter.calibration")

MAX_BATCH_TOKENS_TRIED = (128, 256)
"""Tokens at which a batch is closed, for each candidate. Larger batches gain a few percent more
throughput, and a call that comes next waits twice as long for the one before it."""
TEXT_TOKENS = 64
"""Tokens of each sequence with which throughput is measured: a paragraph."""
SHORT_TOKENS = 16
"""Tokens of the one sequence with which latency is measured: a search query."""
ROUNDS = 3
"""Rounds that count, for each candidate; one before them does not."""
SLICE_NS = 30_000_000
"""Nanoseconds that a candidate computes in one round, but at least one batch."""
BUDGET_NS = 4_000_000_000
"""Nanoseconds that a whole calibration may take before it is given up. A quiet machine needs half
of it."""
TOKENS_PER_S_MIN = 400.0
"""Tokens a second of one thread, below which the candidates would take minutes: such a model gets
the default tuning at once."""
THROUGHPUT_GAIN_MIN = 1.04
"""The ratio of tokens a second by which a candidate must beat the default. Equal candidates differ
by this much on a quiet machine."""
LATENCY_GAIN_MIN = 1.15
"""The same ratio where one short text is measured. It takes a few milliseconds, so that a short
burst of another process makes more of a difference, and what is found is kept for good."""
ROUND_SPREAD_MAX = 1.15
"""The ratio of the fastest round to the next, of the default or the winner, beyond which other
processes use the cores too much: nothing is decided."""


@dataclass(slots=True)
class _TrialWorker:
    """A thread with a backend of its own."""

    thread: ThreadPoolExecutor
    backend: Backend


def calibrate(
    weights: Weights, *, cores: int, clock: Clock, is_wanted: Callable[[], bool] = lambda: True
) -> Tuning | None:
    """Return the fastest tuning found within a few seconds.

    None: nothing could be decided, because other processes use the cores, or because it was not
    wanted any more, which is asked before each round of some milliseconds.

    Raises:
        LoadFailed: not even one backend could be opened.
        InferenceFailed: the model cannot compute.
    """
    usual = default_tuning(cores)
    trial = _Trial(weights, clock, is_wanted)
    with _open_workers(weights, 1, flash_attention=None) as one:
        rate = trial.rate(one, _texts(weights, TEXT_TOKENS, TEXT_TOKENS), threads=1)
        if rate < TOKENS_PER_S_MIN:
            log.info("large models have the usual tuning: %s", usual)
            return usual
    flash = trial.flash_attention()
    with _open_workers(weights, usual.workers, flash_attention=flash) as workers:
        alone = trial.threads_alone(workers[0], cores)
        count, max_batch_tokens = trial.workers_and_batch(workers, usual, cores)
    if trial.is_noisy:
        log.info("the machine is busy: calibration is put off")
        return None
    found = Tuning(
        workers=count,
        threads=max(1, cores // count),
        threads_alone=alone,
        max_batch_tokens=max_batch_tokens,
        flash_attention=flash,
        origin="calibrated",
    )
    log.info("calibrated: %s", found)
    return found


class _Trial:
    """Measures candidates against each other, within one budget of time."""

    def __init__(self, weights: Weights, clock: Clock, is_wanted: Callable[[], bool]) -> None:
        self._weights = weights
        self._clock = clock
        self._is_wanted = is_wanted
        self._deadline_ns = clock.monotonic_ns() + BUDGET_NS
        self.is_noisy = False
        """True: other processes use the cores, the time is up, or nobody wants to know any more."""

    def flash_attention(self) -> bool | None:
        """Return False where the plain attention is clearly faster than the library's choice."""
        texts = _texts(self._weights, TEXT_TOKENS, MAX_BATCH_TOKENS)
        try:
            with (
                _open_workers(self._weights, 1, flash_attention=None) as auto,
                _open_workers(self._weights, 1, flash_attention=False) as plain,
            ):
                candidates: dict[bool | None, Callable[[], float]] = {
                    None: self._measure(auto, texts, threads=1),
                    False: self._measure(plain, texts, threads=1),
                }
                return self._winner(candidates, usual=None, by=THROUGHPUT_GAIN_MIN)
        except LoadFailed:
            return None  # no room for two contexts

    def threads_alone(self, worker: _TrialWorker, cores: int) -> int:
        """Return with how many threads one short text is computed soonest."""
        texts = _texts(self._weights, SHORT_TOKENS, SHORT_TOKENS)
        counts = {cores, *takewhile(lambda n: n < cores, (1, 2, 4, 8, 16, 32, 64, 128))}
        candidates = {n: self._measure([worker], texts, threads=n) for n in sorted(counts)}
        return self._winner(candidates, usual=cores, by=LATENCY_GAIN_MIN)

    def workers_and_batch(
        self, workers: list[_TrialWorker], usual: Tuning, cores: int
    ) -> tuple[int, int]:
        """Return (workers, tokens of a batch) with which the most tokens a second are computed."""
        largest = self._weights.limits.ubatch_tokens_max
        candidates: dict[tuple[int, int], Callable[[], float]] = {}
        for count in sorted({1, max(1, len(workers) // 2), len(workers)}):
            for max_batch_tokens in sorted({min(size, largest) for size in MAX_BATCH_TOKENS_TRIED}):
                texts = _texts(self._weights, TEXT_TOKENS, max_batch_tokens)
                candidates[count, max_batch_tokens] = self._measure(
                    workers[:count], texts, threads=max(1, cores // count)
                )
        default = (len(workers), min(usual.max_batch_tokens, largest))
        return self._winner(candidates, usual=default, by=THROUGHPUT_GAIN_MIN)

    def _winner(self, candidates: Mapping[K, Callable[[], float]], *, usual: K, by: float) -> K:
        """Return the fastest candidate if it beats the usual one by a factor, else that one."""
        rounds: dict[K, list[float]] = {key: [] for key in candidates}
        # The first round touches pages and grows buffers; it does not count.
        for number in range(1 + ROUNDS):
            for key, measure in candidates.items():
                is_late = self._clock.monotonic_ns() > self._deadline_ns
                if self.is_noisy or is_late or not self._is_wanted():
                    self.is_noisy = True
                    return usual
                rate = measure()
                if number:
                    rounds[key].append(rate)
        # Other programs only ever make a round slower: the fastest is what a candidate can do.
        rates = {key: max(each) for key, each in rounds.items()}
        best = max(rates, key=rates.__getitem__)
        for key in (usual, best):
            fastest, second = sorted(rounds[key], reverse=True)[:2]
            self.is_noisy = self.is_noisy or fastest > ROUND_SPREAD_MAX * second
        return best if rates[best] > by * rates[usual] else usual

    def _measure(
        self, workers: Sequence[_TrialWorker], texts: list[TokenSequence], *, threads: int
    ) -> Callable[[], float]:
        return lambda: self.rate(workers, texts, threads=threads)

    def rate(
        self, workers: Sequence[_TrialWorker], texts: list[TokenSequence], *, threads: int
    ) -> float:
        """Return the tokens a second of all workers computing at the same time."""
        tokens = sum(map(len, texts))
        began_ns = self._clock.monotonic_ns()

        def work(worker: _TrialWorker) -> int:
            batches = 0
            while not batches or self._clock.monotonic_ns() - began_ns < SLICE_NS:
                worker.backend.compute(texts, threads=threads)
                batches += 1
            return batches

        running = [worker.thread.submit(work, worker) for worker in workers]
        batches = sum(each.result() for each in running)
        elapsed_ns = max(1, self._clock.monotonic_ns() - began_ns)
        return batches * tokens * 1e9 / elapsed_ns


@contextmanager
def _open_workers(
    weights: Weights, size: int, *, flash_attention: bool | None
) -> Iterator[list[_TrialWorker]]:
    """Yield up to `size` workers, fewer where memory has room for fewer, and at least one."""
    ubatch = min(max(MAX_BATCH_TOKENS_TRIED), weights.limits.ubatch_tokens_max)
    limits = EngineLimits(ubatch, min(256, ubatch), weights.limits.sequences_max)
    workers: list[_TrialWorker] = []
    try:
        for _ in range(min(size, WORKERS_MAX)):
            thread = ThreadPoolExecutor(1, thread_name_prefix="calibration")
            try:
                backend = thread.submit(
                    weights.open_backend, limits, flash_attention=flash_attention
                )
                workers.append(_TrialWorker(thread, backend.result()))
            except LoadFailed:
                thread.shutdown()
                if not workers:
                    raise
                break
        yield workers
    finally:
        for worker in workers:
            worker.thread.submit(worker.backend.close).result()
            worker.thread.shutdown()


def _texts(weights: Weights, length: int, total: int) -> list[TokenSequence]:
    """Return sequences of the same noise every time, `total` tokens in all."""
    random = np.random.default_rng(0)
    length = min(length, weights.facts.tokens_max)
    count = max(1, min(total // length, weights.limits.sequences_max))
    tokens = random.integers(0, weights.facts.vocabulary, (count, length), dtype=np.int32)
    return [TokenSequence(row, length, truncated=False) for row in tokens]
