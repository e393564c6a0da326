"""Calibration: which tuning is fastest for this model on this machine.

Owns a short contest: candidates compute the same sequences in turns, and one that is not clearly
faster than the default loses to it. Deliberately remembers nothing: `tuning` does.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from statistics import median
from typing import TypeVar

import numpy as np

from appliance.core.clock import Clock
from appliance.core.errors import LoadFailed
from appliance.engine.backend import Backend, EngineLimits, Weights
from appliance.engine.tuning import BIN_TOKENS, LANES_MAX, Tuning, default_tuning
from appliance.tasks.sequence import TokenSequence

K = TypeVar("K")

log = logging.getLogger("gigarouter.calibration")

BINS = (128, 256)
"""Larger bins gain a few percent more, and make whoever comes next wait twice as long."""
TEXT_TOKENS = 64
"""The contest's texts: a paragraph each."""
SHORT_TOKENS = 16
"""A search query: what a single call in flight is tuned for."""
ROUNDS = 3
SLICE_NS = 30_000_000
"""How long a candidate computes in one round, at least one bin."""
BUDGET_NS = 4_000_000_000
"""A quiet machine needs half of it."""
SLOW = 400.0
"""Tokens a second on one thread, below which a contest would take minutes."""
CLEARLY = 1.04
"""Identical runs differ by this much on a quiet machine."""
MUCH = 1.15
"""One short text is a few milliseconds: a neighbour's burst must not cost it its cores for ever."""
NOISE = 1.3
"""The usual candidate's rounds differ by more than this when others use the cores."""


@dataclass(slots=True)
class _Member:
    """A thread with a backend of its own."""

    thread: ThreadPoolExecutor
    backend: Backend


def calibrate(weights: Weights, *, cores: int, clock: Clock) -> Tuning:
    """Return the fastest tuning found within a few seconds.

    Raises:
        LoadFailed: not even one backend could be opened.
        InferenceFailed: the model cannot compute.
    """
    usual = default_tuning(cores)
    contest = _Contest(weights, clock)
    with _crew(weights, 1, flash_attention=None) as one:
        if contest.rate(one, _texts(weights, TEXT_TOKENS, TEXT_TOKENS), threads=1) < SLOW:
            log.info("large models have the usual tuning: %s", usual)
            return usual
    flash = contest.flash_attention()
    with _crew(weights, usual.lanes, flash_attention=flash) as crew:
        alone = contest.threads_alone(crew[0], cores)
        lanes, bin_tokens = contest.spread(crew, usual, cores)
    if contest.is_noisy:
        log.info("the machine is busy: calibration is put off to the next load")
        return usual
    found = Tuning(
        lanes=lanes,
        threads=max(1, cores // lanes),
        threads_alone=alone,
        bin_tokens=bin_tokens,
        flash_attention=flash,
        origin="calibrated",
    )
    log.info("calibrated: %s", found)
    return found


class _Contest:
    """Measures candidates against each other."""

    def __init__(self, weights: Weights, clock: Clock) -> None:
        self._weights = weights
        self._clock = clock
        self._deadline_ns = clock.monotonic_ns() + BUDGET_NS
        self.is_noisy = False
        """True: others use the cores, and no measurement means anything."""

    def flash_attention(self) -> bool | None:
        """Return False where the plain attention is clearly faster than the library's choice."""
        texts = _texts(self._weights, TEXT_TOKENS, BIN_TOKENS)
        try:
            with (
                _crew(self._weights, 1, flash_attention=None) as auto,
                _crew(self._weights, 1, flash_attention=False) as plain,
            ):
                candidates: dict[bool | None, Callable[[], float]] = {
                    None: self._timed(auto, texts, threads=1),
                    False: self._timed(plain, texts, threads=1),
                }
                return self._winner(candidates, usual=None, by=CLEARLY)
        except LoadFailed:
            return None  # no room for two contexts

    def threads_alone(self, member: _Member, cores: int) -> int:
        """Return with how many threads one short text is computed soonest."""
        texts = _texts(self._weights, SHORT_TOKENS, SHORT_TOKENS)
        counts = {cores, *takewhile(lambda n: n < cores, (1, 2, 4, 8, 16, 32, 64, 128))}
        candidates = {n: self._timed([member], texts, threads=n) for n in sorted(counts)}
        return self._winner(candidates, usual=cores, by=MUCH)

    def spread(self, crew: list[_Member], usual: Tuning, cores: int) -> tuple[int, int]:
        """Return the lanes and the bin with which the most tokens a second are computed."""
        largest = self._weights.limits.ubatch_tokens_max
        candidates: dict[tuple[int, int], Callable[[], float]] = {}
        for lanes in sorted({1, max(1, len(crew) // 2), len(crew)}):
            for bin_tokens in sorted({min(size, largest) for size in BINS}):
                texts = _texts(self._weights, TEXT_TOKENS, bin_tokens)
                candidates[lanes, bin_tokens] = self._timed(
                    crew[:lanes], texts, threads=max(1, cores // lanes)
                )
        standing = (len(crew), min(usual.bin_tokens, largest))
        return self._winner(candidates, usual=standing, by=CLEARLY)

    def _winner(self, candidates: Mapping[K, Callable[[], float]], *, usual: K, by: float) -> K:
        """Return the fastest candidate if it beats the usual one by a factor, else that one."""
        found: dict[K, list[float]] = {key: [] for key in candidates}
        # The first round touches pages and grows buffers; it does not count.
        for number in range(1 + ROUNDS):
            for key, measure in candidates.items():
                if self.is_noisy or self._clock.monotonic_ns() > self._deadline_ns:
                    self.is_noisy = True
                    return usual
                rate = measure()
                if number:
                    found[key].append(rate)
        if max(found[usual]) > NOISE * min(found[usual]):
            self.is_noisy = True
        rates = {key: median(each) for key, each in found.items()}
        best = max(rates, key=rates.__getitem__)
        return best if rates[best] > by * rates[usual] else usual

    def _timed(
        self, crew: Sequence[_Member], texts: list[TokenSequence], *, threads: int
    ) -> Callable[[], float]:
        return lambda: self.rate(crew, texts, threads=threads)

    def rate(self, crew: Sequence[_Member], texts: list[TokenSequence], *, threads: int) -> float:
        """Return the tokens a second of all members computing at the same time."""
        tokens = sum(map(len, texts))
        began_ns = self._clock.monotonic_ns()

        def work(member: _Member) -> int:
            bins = 0
            while not bins or self._clock.monotonic_ns() - began_ns < SLICE_NS:
                member.backend.compute(texts, threads=threads)
                bins += 1
            return bins

        running = [member.thread.submit(work, member) for member in crew]
        bins = sum(each.result() for each in running)
        elapsed_ns = max(1, self._clock.monotonic_ns() - began_ns)
        return bins * tokens * 1e9 / elapsed_ns


@contextmanager
def _crew(weights: Weights, size: int, *, flash_attention: bool | None) -> Iterator[list[_Member]]:
    """Yield up to `size` members, fewer where memory has room for fewer, and at least one."""
    ubatch = min(max(BINS), weights.limits.ubatch_tokens_max)
    limits = EngineLimits(ubatch, min(256, ubatch), weights.limits.sequences_max)
    crew: list[_Member] = []
    try:
        for _ in range(min(size, LANES_MAX)):
            thread = ThreadPoolExecutor(1, thread_name_prefix="calibration")
            try:
                opened = thread.submit(
                    weights.open_backend, limits, flash_attention=flash_attention
                )
                crew.append(_Member(thread, opened.result()))
            except LoadFailed:
                thread.shutdown()
                if not crew:
                    raise
                break
        yield crew
    finally:
        for member in crew:
            member.thread.submit(member.backend.close).result()
            member.thread.shutdown()


def _texts(weights: Weights, length: int, total: int) -> list[TokenSequence]:
    """Return sequences of the same noise every time, `total` tokens in all."""
    random = np.random.default_rng(0)
    length = min(length, weights.facts.tokens_max)
    count = max(1, min(total // length, weights.limits.sequences_max))
    tokens = random.integers(0, weights.facts.vocabulary, (count, length), dtype=np.int32)
    return [TokenSequence(row, length, truncated=False) for row in tokens]
