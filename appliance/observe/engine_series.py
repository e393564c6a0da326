"""Engine series: what engines have computed, for Prometheus.

Owns the sums over engines of one model. They only grow: what an engine had counted stays when its
model is freed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

NS_PER_S = 1_000_000_000
ENGINE_COUNTERS: Mapping[str, str] = MappingProxyType(
    {
        "batches": "Batches computed.",
        "sequences": "Sequences computed.",
        "tokens": "Tokens computed.",
        "shared": "Sequences that took the result of an equal one in flight.",
        "cached": "Sequences whose row was in the vector cache.",
        "busy_ns": "Time in which workers computed, summed over workers.",
    }
)
"""What each engine counts, by attribute."""


class EngineCounters(Protocol):
    """What an engine has done since it was loaded."""

    batches: int
    sequences: int
    tokens: int
    shared: int
    cached: int
    busy_ns: int
    fills: tuple[int, ...]
    filled: float


@dataclass(frozen=True, slots=True)
class EngineReading:
    """One engine at the moment of a scrape."""

    number: int
    """Tells this engine from every other one of the process."""
    model: str
    counters: EngineCounters
    waiting_tokens: int
    workers: int
    """Those that have a backend."""
    computing: int
    """Those of them that compute."""


class EngineSeries:
    """Engines as they were read last, and the sums of those that are gone."""

    def __init__(self) -> None:
        """Begin with none."""
        self._now: dict[str, tuple[int, int, int]] = {}
        """By model: waiting tokens, workers that compute and that do not."""
        self._totals: dict[str, list[float]] = {}
        self._freed: dict[str, list[float]] = {}
        """By model, what engines had counted that are gone."""
        self._known: dict[int, tuple[str, EngineCounters]] = {}
        """By engine, its model and what it had counted when it was read last."""
        self._absent: set[int] = set()
        """Those of engines that the last reading did not name."""

    def __repr__(self) -> str:
        """Count models."""
        return f"<EngineSeries [{len(self._totals)} models]>"

    def take(self, engines: Sequence[EngineReading], labels: Iterable[str]) -> None:
        """Replace the last reading; of one model there may be two engines."""
        now: dict[str, tuple[int, int, int]] = {}
        here = set()
        for engine, model in zip(engines, labels, strict=True):
            waiting, computing, idle = now.get(model, (0, 0, 0))
            now[model] = (
                waiting + engine.waiting_tokens,
                computing + engine.computing,
                idle + engine.workers - engine.computing,
            )
            here.add(engine.number)
            self._known[engine.number] = model, engine.counters
        self._forget(here)
        totals = {model: list(counts) for model, counts in self._freed.items()}
        for model, counters in self._known.values():
            _add(totals, model, counters)
        self._now, self._totals = now, totals

    def _forget(self, here: set[int]) -> None:
        """Add the counters of engines that two readings in a row did not name to the freed ones.

        One that a single reading missed may be on its way in or out.
        """
        absent = self._known.keys() - here
        for number in absent & self._absent:
            _add(self._freed, *self._known.pop(number))
        self._absent = absent & self._known.keys()

    def collect(self) -> Iterator[Metric]:
        """Yield the series; on any thread, from what `take` has put there whole."""
        totals, now = self._totals, self._now
        for index, (name, text) in enumerate(ENGINE_COUNTERS.items()):
            series, per = ("busy_seconds", NS_PER_S) if name == "busy_ns" else (name, 1)
            family = CounterMetricFamily(f"gigarouter_engine_{series}", text, labels=("model",))
            for model, counts in totals.items():
                family.add_metric((model,), counts[index] / per)
            yield family
        yield _fills(totals)
        waiting = GaugeMetricFamily(
            "gigarouter_engine_waiting_tokens",
            "Tokens in the queue and in batches.",
            labels=("model",),
        )
        workers = GaugeMetricFamily(
            "gigarouter_engine_workers",
            "Workers, each of which computes one batch at a time.",
            labels=("model", "state"),
        )
        for model, (tokens, computing, idle) in now.items():
            waiting.add_metric((model,), tokens)
            workers.add_metric((model, "computing"), computing)
            workers.add_metric((model, "idle"), idle)
        yield waiting
        yield workers


def _fills(totals: Mapping[str, Sequence[float]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "gigarouter_engine_batch_fill_ratio",
        "How full batches were: their tokens, of those at which a batch is closed.",
        labels=("model",),
    )
    for model, counts in totals.items():
        *parts, filled = counts[len(ENGINE_COUNTERS) :]
        below, buckets = 0.0, []
        for part, count in enumerate(parts, 1):
            below += count
            buckets.append((str(part / len(parts)), below))
        family.add_metric((model,), [*buckets, ("+Inf", below)], sum_value=filled)
    return family


def _add(totals: dict[str, list[float]], model: str, counters: EngineCounters) -> None:
    """Add what an engine counted, in the order of `ENGINE_COUNTERS`, and then its fills."""
    plain = [float(getattr(counters, name)) for name in ENGINE_COUNTERS]
    values = [*plain, *counters.fills, counters.filled]
    known = totals.get(model)
    totals[model] = values if known is None else [a + b for a, b in zip(known, values, strict=True)]
