"""Calibration: which tuning is fastest for this model on this machine.

Owns a short contest: candidates compute the same sequences in turns, and one that is not clearly
faster than the default loses to it. Deliberately remembers nothing: `tuning` does.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from statistics import median
from typing import TypeVar

import msgspec
import numpy as np

from appliance.core.clock import Clock
from appliance.core.errors import LoadFailed
from appliance.engine.backend import Backend, EngineLimits, Weights
from appliance.engine.tuning import LANES_MAX, Tuning, default_tuning
from appliance.tasks.sequence import TokenSequence

K = TypeVar("K")

log = logging.getLogger("gigarouter.calibration")

BINS = (128, 256, 512)
TEXT_TOKENS = 64
"""The contest's texts: a paragraph each."""
SHORT_TOKENS = 16
"""A search query: what a single call in flight is tuned for."""
ROUNDS = 3
SLICE_NS = 30_000_000
"""How long a candidate computes in one round, at least one bin."""
BUDGET_NS = 1_500_000_000
"""A model so large that the contest takes longer keeps what was found until then."""
CLEARLY = 1.04
"""Identical runs differ by this much on a quiet machine."""
MUCH = 1.15
"""One short text is a few milliseconds: a neighbour's burst must not cost it its cores for ever."""


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
    chosen = default_tuning(cores)
    deadline_ns = clock.monotonic_ns() + BUDGET_NS
    contest = _Contest(weights, clock, deadline_ns)
    flash = contest.flash_attention()
    with _crew(weights, chosen.lanes, flash_attention=flash) as crew:
        chosen = msgspec.structs.replace(
            chosen,
            flash_attention=flash,
            threads_alone=contest.threads_alone(crew[0], cores),
            origin="calibrated",
        )
        spread = contest.spread(crew, chosen, cores)
    log.info("calibrated: %s", spread)
    return spread


class _Contest:
    """Measures candidates against each other."""

    def __init__(self, weights: Weights, clock: Clock, deadline_ns: int) -> None:
        self._weights = weights
        self._clock = clock
        self._deadline_ns = deadline_ns

    def flash_attention(self) -> bool | None:
        """Return False where the plain attention is clearly faster than the library's choice."""
        texts = _texts(self._weights, TEXT_TOKENS, 256)
        with (
            _crew(self._weights, 1, flash_attention=None) as usual,
            _crew(self._weights, 1, flash_attention=False) as plain,
        ):
            candidates: dict[bool | None, Callable[[], float]] = {
                None: self._timed(usual, texts, threads=1),
                False: self._timed(plain, texts, threads=1),
            }
            rates = self._medians(candidates)
        return False if rates[False] > CLEARLY * rates[None] else None

    def threads_alone(self, member: _Member, cores: int) -> int:
        """Return with how many threads one short text is computed soonest."""
        texts = _texts(self._weights, SHORT_TOKENS, SHORT_TOKENS)
        counts = {cores, *takewhile(lambda n: n < cores, (1, 2, 4, 8, 16, 32, 64, 128))}
        rates = self._medians(
            {count: self._timed([member], texts, threads=count) for count in sorted(counts)}
        )
        best = max(rates, key=rates.__getitem__)
        return best if rates[best] > MUCH * rates[cores] else cores

    def spread(self, crew: list[_Member], chosen: Tuning, cores: int) -> Tuning:
        """Return `chosen` with the lanes and bins that compute the most tokens a second."""
        candidates: dict[tuple[int, int], Callable[[], float]] = {}
        for lanes in sorted({1, max(1, len(crew) // 2), len(crew)}):
            for bin_tokens in BINS:
                if bin_tokens > self._weights.limits.ubatch_tokens_max:
                    continue
                texts = _texts(self._weights, TEXT_TOKENS, bin_tokens)
                candidates[lanes, bin_tokens] = self._timed(
                    crew[:lanes], texts, threads=max(1, cores // lanes)
                )
        rates = self._medians(candidates)
        usual = (len(crew), min(chosen.bin_tokens, self._weights.limits.ubatch_tokens_max))
        best = max(rates, key=rates.__getitem__)
        if rates[best] <= CLEARLY * rates.get(usual, 0.0):
            best = usual
        lanes, bin_tokens = best
        return msgspec.structs.replace(
            chosen, lanes=lanes, threads=max(1, cores // lanes), bin_tokens=bin_tokens
        )

    def _medians(self, candidates: dict[K, Callable[[], float]]) -> dict[K, float]:
        """Return each candidate's median rate over rounds in which all take turns."""
        found: dict[K, list[float]] = {key: [] for key in candidates}
        for measure in candidates.values():
            measure()  # pages are touched and buffers grown
        for number in range(ROUNDS):
            if number and self._clock.monotonic_ns() > self._deadline_ns:
                break
            for key, measure in candidates.items():
                found[key].append(measure())
        return {key: median(rates) for key, rates in found.items()}

    def _timed(
        self, crew: Sequence[_Member], texts: list[TokenSequence], *, threads: int
    ) -> Callable[[], float]:
        return lambda: self._rate(crew, texts, threads=threads)

    def _rate(self, crew: Sequence[_Member], texts: list[TokenSequence], *, threads: int) -> float:
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
