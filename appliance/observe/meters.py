"""Meters: the calls that ended, counted by the second and by the minute.

Owns the counters, the last calls and the quantiles. O(1) for each call, and bounded: a day of
minutes, a quarter of an hour of seconds. Texts and vectors are
never kept, and a restart begins anew: the ledger has the sums.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.core.clock import Clock, iso, utc_day
from appliance.core.units import Picocredits, credits_text
from appliance.wire.stats import Activity, CallView, Point, Quantiles

SECONDS_KEPT = 900
MINUTES_KEPT = 1440
RECENT_KEPT = 200
TIMED_KEPT = 1000
"""Calls whose stages are remembered for quantiles."""
RATE_OVER_S = 5
QUANTILES_OVER_S = 60
NAMES_MAX = 50
"""Models and keys shown; the busiest."""
REFUSALS_MAX = 8
POINTS = 90
"""Of the longer histories."""
SPANS = {60: 1, 900: 10, 86_400: 960}
"""Histories that can be asked for, in seconds, and the seconds of one step."""
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that ended."""

    request_id: str
    status: int
    code: str
    key: str
    """Its name; empty: no key was good."""
    key_id: str
    model: str
    tier: str
    is_documents: bool
    units: int
    """Tokens or documents that were charged."""
    tokens: int
    """Tokens that were computed."""
    amount: Picocredits
    total_ms: float
    stages: Mapping[str, float]
    """Milliseconds; empty for a refusal."""
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By stage, when it began and ended, in nanoseconds of the monotonic clock."""
    trace_parent: str = ""
    """What it is a part of, as W3C's header `traceparent` says."""


@dataclass(slots=True)
class _Bucket:
    at: int
    """The second or minute that it counts."""
    calls: int = 0
    tokens: int = 0
    documents: int = 0
    errors: int = 0

    def add(self, ended: CallRecord) -> None:
        self.calls += 1
        if ended.is_documents:
            self.documents += ended.units
        else:
            self.tokens += ended.units
        self.errors += ended.status >= 400  # noqa: PLR2004 - every refusal

    def join(self, other: "_Bucket") -> None:
        self.calls += other.calls
        self.tokens += other.tokens
        self.documents += other.documents
        self.errors += other.errors


@dataclass(slots=True)
class _Ring:
    """The last buckets, each of so many seconds."""

    each_s: int
    kept: int
    buckets: deque[_Bucket] = field(default_factory=deque)

    def add(self, second: int, ended: CallRecord) -> None:
        at = second // self.each_s
        if not self.buckets or self.buckets[-1].at != at:
            self.buckets.append(_Bucket(at))
            while self.buckets[0].at <= at - self.kept:
                self.buckets.popleft()
        self.buckets[-1].add(ended)

    def since(self, second: int) -> Iterable[_Bucket]:
        return [b for b in self.buckets if b.at * self.each_s >= second]


class Meters:
    """What one server has done; call on the loop's thread."""

    def __init__(
        self,
        clock: Clock,
        charged_today: Picocredits,
        *,
        on_call: Sequence[Callable[[CallRecord], None]] = (),
    ) -> None:
        """Begin to count; each of `on_call` is called with each record that is noted."""
        self._clock = clock
        self._on_call = on_call
        self._today = utc_day(clock.wall_us()), charged_today
        self._began_ns = clock.monotonic_ns()
        self._seconds = _Ring(1, SECONDS_KEPT)
        self._minutes = _Ring(60, MINUTES_KEPT)
        self._recent: deque[tuple[int, CallRecord, int]] = deque(maxlen=RECENT_KEPT)
        self._timed: deque[tuple[int, CallRecord]] = deque(maxlen=TIMED_KEPT)
        self._named: deque[tuple[int, dict[tuple[str, str], _Bucket]]] = deque(
            maxlen=QUANTILES_OVER_S + 1
        )
        """By the second: what each model, each key and each refusal had."""
        self.charged = Picocredits(0)
        """Since the start."""

    def __repr__(self) -> str:
        """Say how much is remembered."""
        return f"<Meters [{len(self._recent)} recent calls]>"

    def _second(self) -> int:
        return (self._clock.monotonic_ns() - self._began_ns) // NS_PER_S

    @property
    def uptime_s(self) -> int:
        """Return the seconds since the start."""
        return self._second()

    @property
    def charged_today(self) -> Picocredits:
        """Return what was charged on this UTC day, over restarts; refunds are left in."""
        day, charged = self._today
        return charged if day == utc_day(self._clock.wall_us()) else Picocredits(0)

    def note(self, ended: CallRecord) -> None:
        """Count a call that ended."""
        for note in self._on_call:
            note(ended)
        second = self._second()
        self._seconds.add(second, ended)
        self._minutes.add(second, ended)
        self._recent.appendleft((second, ended, self._clock.wall_us()))
        self._timed.append((second, ended))
        if not self._named or self._named[-1][0] != second:
            self._named.append((second, {}))
        refusal = f"{ended.status} {ended.code}" if ended.code else ""
        for name in (("model", ended.model), ("key", ended.key), ("code", refusal)):
            if name[1]:
                self._named[-1][1].setdefault(name, _Bucket(second)).add(ended)
        self.charged = Picocredits(self.charged + ended.amount)
        self._today = utc_day(self._clock.wall_us()), Picocredits(self.charged_today + ended.amount)

    def rates(self) -> Point:
        """Return what happens a second, over the last few whole ones."""
        now = self._second()
        return _summed(self._seconds.since(now - RATE_OVER_S), RATE_OVER_S, before=now)

    def history(self, span_s: int) -> tuple[list[Point], int]:
        """Return the steps of one of `SPANS`, oldest first, and the seconds of a step."""
        step_s = SPANS[span_s]
        ring = self._seconds if span_s <= SECONDS_KEPT else self._minutes
        now = self._second()
        last = now // step_s
        steps: dict[int, list[_Bucket]] = {}
        for bucket in ring.buckets:
            steps.setdefault(bucket.at * ring.each_s // step_s, []).append(bucket)
        count = min(POINTS, span_s // step_s)
        return [
            _summed(steps.get(n, ()), step_s) for n in range(last - count + 1, last + 1)
        ], step_s

    def stages(self) -> dict[str, Quantiles]:
        """Return the quantiles of each stage over the last minute, and of the whole."""
        horizon = self._second() - QUANTILES_OVER_S
        values: dict[str, list[float]] = {}
        for second, ended in self._timed:
            if second >= horizon and ended.stages:
                for stage, ms in (*ended.stages.items(), ("total", ended.total_ms)):
                    values.setdefault(stage, []).append(ms)
        return {stage: _quantiles(found) for stage, found in values.items()}

    def activity(self, by: str) -> list[Activity]:
        """Return what each model or key (`by`) did in the last minute, the busiest first."""
        ranked = sorted(self._last_minute(by).items(), key=lambda item: (-item[1].calls, item[0]))
        return [
            Activity(name, b.calls, b.tokens, b.documents, b.errors)
            for name, b in ranked[:NAMES_MAX]
        ]

    def refusals(self) -> dict[str, int]:
        """Return how often what was refused in the last minute, the most frequent first."""
        counts = Counter({code: b.calls for code, b in self._last_minute("code").items()})
        return dict(counts.most_common(REFUSALS_MAX))

    def _last_minute(self, by: str) -> dict[str, _Bucket]:
        horizon = self._second() - QUANTILES_OVER_S
        found: dict[str, _Bucket] = {}
        for second, named in self._named:
            if second >= horizon:
                for (kind, name), bucket in named.items():
                    if kind == by:
                        found.setdefault(name, _Bucket(0)).join(bucket)
        return found

    def recent(self, count: int) -> list[CallView]:
        """Return the last calls, the newest first."""
        return [_view(ended, at_us) for _, ended, at_us in list(self._recent)[:count]]


def _summed(buckets: Iterable[_Bucket], seconds: int, before: int | None = None) -> Point:
    chosen = [b for b in buckets if before is None or b.at < before]
    return Point(
        calls=sum(b.calls for b in chosen) / seconds,
        tokens=sum(b.tokens for b in chosen) / seconds,
        documents=sum(b.documents for b in chosen) / seconds,
        errors=sum(b.errors for b in chosen) / seconds,
    )


def _quantiles(values: list[float]) -> Quantiles:
    ordered = sorted(values)
    return Quantiles(
        p50=round(ordered[(len(ordered) - 1) // 2], 3),
        p95=round(ordered[max(0, -(-len(ordered) * 95 // 100) - 1)], 3),
    )


def _view(ended: CallRecord, at_us: int) -> CallView:
    return CallView(
        at=iso(at_us) or "",
        status=ended.status,
        code=ended.code,
        key=ended.key,
        model=ended.model,
        tier=ended.tier,
        units=ended.units,
        cost=credits_text(ended.amount),
        ms=round(ended.total_ms, 2),
        request_id=ended.request_id,
    )
