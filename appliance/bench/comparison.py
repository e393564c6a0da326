"""Comparison: rounds of one workload against one server, or two in turn, and the figures of each.

Owns the alternation A/B/A/B: the speed of a shared machine drifts by a third within minutes, so two
servers are compared only within one round, and the median of the rounds' ratios is the result.
"""

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

from appliance.bench.driver import Sample, Target, drive
from appliance.bench.workload import Workload, bodies
from appliance.core.clock import Clock

WARM_UP_SHARE = 0.25
"""Share of a run's seconds for which calls are sent first and not counted."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server and the names of its models there."""

    target: Target
    rerank_path: str
    embed_model: str
    rerank_model: str

    def aimed(self, workload: Workload) -> tuple[Target, str]:
        """Return where the workload is sent and the model that its bodies name."""
        if workload.kind == "embeddings":
            return self.target, self.embed_model
        return Target(self.target.url, self.rerank_path, self.target.key), self.rerank_model


class Figures(msgspec.Struct, frozen=True):
    """Medians over the rounds of one workload on one server."""

    requests_per_s: float
    texts_per_s: float
    tokens_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    first_error: str


class Result(msgspec.Struct, frozen=True):
    """The figures of one workload."""

    workload: str
    rounds: int
    ours: Figures
    theirs: Figures | None = None
    ratio: float | None = None
    """Median over the rounds of our requests per second divided by theirs."""
    ratio_min: float | None = None
    ratio_max: float | None = None


async def compare(
    workloads: Sequence[Workload],
    ours: Side,
    theirs: Side | None,
    *,
    seconds: float,
    rounds: int,
    rest_s: float,
    clock: Clock,
) -> AsyncIterator[Result]:
    """Yield the result of each workload as soon as its rounds are done.

    Between two runs nobody calls for `rest_s`: a server may go on computing for clients that left.
    """
    for workload in workloads:
        sides = [ours] if theirs is None else [ours, theirs]
        for side in sides:
            await _run(side, workload, seconds * WARM_UP_SHARE, clock)
        samples: list[list[Sample]] = [[] for _ in sides]
        for _ in range(rounds):
            for side, mine in zip(sides, samples, strict=True):
                await asyncio.sleep(rest_s)
                mine.append(await _run(side, workload, seconds, clock))
        yield _result(workload, samples)


async def _run(side: Side, workload: Workload, seconds: float, clock: Clock) -> Sample:
    target, model = side.aimed(workload)
    return await drive(
        target,
        bodies(workload, model),
        connections=workload.connections,
        seconds=seconds,
        clock=clock,
    )


def _result(workload: Workload, samples: Sequence[Sequence[Sample]]) -> Result:
    ours = _figures(workload, samples[0])
    if len(samples) == 1:
        return Result(workload.name, len(samples[0]), ours)
    ratios = [
        mine.requests_per_s / their.requests_per_s if their.latencies_ns else float("inf")
        for mine, their in zip(*samples, strict=True)
    ]
    return Result(
        workload.name,
        len(ratios),
        ours,
        _figures(workload, samples[1]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def _figures(workload: Workload, samples: Sequence[Sample]) -> Figures:
    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    requests = median([sample.requests_per_s for sample in samples])
    return Figures(
        requests_per_s=requests,
        texts_per_s=requests * workload.texts,
        tokens_per_s=median([sample.tokens_per_s for sample in samples]),
        p50_ms=median([sample.percentile_ms(0.50) for sample in samples]),
        p95_ms=median([sample.percentile_ms(0.95) for sample in samples]),
        p99_ms=median([sample.percentile_ms(0.99) for sample in samples]),
        errors=sum(sample.errors for sample in samples),
        first_error=next((s.first_error for s in samples if s.first_error), ""),
    )
