"""Meters: the requests that ended, counted by the second.

Owns the counters, the last calls and the quantiles. O(1) for each call, and bounded: a quarter of
an hour of seconds. Longer histories are `History`'s. Texts and vectors are never kept; what is
counted here begins anew with a process, and the ledger has the sums.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from appliance.core.clock import Clock, iso, utc_day
from appliance.core.tally import Tally
from appliance.core.units import Picocredits, credits_text
from appliance.observe import history
from appliance.observe.history import History, point_of
from appliance.wire.stats import Activity, CallView, Point, Quantiles

SECONDS_KEPT = 900
RECENT_KEPT = 200
TIMED_KEPT = 1000
"""Calls whose stages are remembered for quantiles."""
RATE_OVER_S = 5
QUANTILES_OVER_S = 60
NAMES_MAX = 50
"""Models and keys shown; the busiest."""
REFUSALS_MAX = 8
SECOND_SPANS = {60: 1, 900: 10}
SPANS = {**SECOND_SPANS, **history.SPANS}
"""Histories that can be asked for, in seconds, and the seconds of one step."""
RATES = tuple(field.name for field in msgspec.structs.fields(Point))
BAD = 400
"""The status from which on an answer is a refusal."""
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
    tokens: int
    """`usage.total_tokens` of its answer; 0 where nothing was charged."""
    documents: int
    """That rerank was charged for."""
    is_charged: bool
    """False: it was refused, or answered for nothing."""
    amount: Picocredits
    total_ms: float
    stages: Mapping[str, float]
    """Milliseconds; empty for a refusal."""
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By stage, when it began and ended, in nanoseconds of the monotonic clock."""
    trace_parent: str = ""
    """What it is a part of, as W3C's header `traceparent` says."""

    @property
    def tally(self) -> Tally:
        """It counts once: as a call, as refused or as free."""
        if self.status >= BAD:
            return Tally(refused=1)
        if not self.is_charged:
            return Tally(free=1)
        return Tally(calls=1, tokens=self.tokens, documents=self.documents)


@dataclass(slots=True)
class _Bucket:
    at: int
    """The second that it counts."""
    tally: Tally = field(default_factory=Tally)


class Meters:
    """What one server has done; call on the loop's thread."""

    def __init__(
        self,
        clock: Clock,
        charged_today: Picocredits,
        *,
        on_call: Sequence[Callable[[CallRecord], None]] = (),
        history: History | None = None,
    ) -> None:
        """Begin to count; each of `on_call` is called with each record that is noted.

        `history` is that of earlier processes, if there were any.
        """
        self._clock = clock
        self._on_call = on_call
        self._today = utc_day(clock.wall_us()), charged_today
        self._began_ns = clock.monotonic_ns()
        self.history = history or History(clock)
        self._seconds: deque[_Bucket] = deque(maxlen=SECONDS_KEPT + 1)
        self._recent: deque[tuple[int, CallRecord, int]] = deque(maxlen=RECENT_KEPT)
        self._timed: deque[tuple[int, CallRecord]] = deque(maxlen=TIMED_KEPT)
        self._named: deque[tuple[int, dict[tuple[str, str], Tally]]] = deque(
            maxlen=QUANTILES_OVER_S + 1
        )
        """By the second: what each model, each key and each refusal had."""
        self.charged = Picocredits(0)
        """Since the start."""
        self.before = ""
        """How the server ended that this one was started in the place of; empty: there was none."""

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
        tally = ended.tally
        if not self._seconds or self._seconds[-1].at != second:
            self._seconds.append(_Bucket(second))
        self._seconds[-1].tally.join(tally)
        self.history.add(ended.model, tally)
        self._recent.appendleft((second, ended, self._clock.wall_us()))
        self._timed.append((second, ended))
        if not self._named or self._named[-1][0] != second:
            self._named.append((second, {}))
        refusal = f"{ended.status} {ended.code}" if ended.code else ""
        for name in (("model", ended.model), ("key", ended.key), ("code", refusal)):
            if name[1]:
                self._named[-1][1].setdefault(name, Tally()).join(tally)
        self.charged = Picocredits(self.charged + ended.amount)
        self._today = utc_day(self._clock.wall_us()), Picocredits(self.charged_today + ended.amount)

    def rates(self) -> Point:
        """Return what happens a second, over the last few whole ones."""
        now = self._second()
        return self._summed(now - RATE_OVER_S, now)

    def points(self, span_s: int) -> tuple[list[Point], int]:
        """Return the steps of one of `SPANS`, oldest first, and the seconds of a step.

        Steps of seconds are those that are over; of the longer spans the last one runs.
        """
        if span_s not in SECOND_SPANS:
            return self.history.points(span_s)
        step_s = SECOND_SPANS[span_s]
        last = self._second() // step_s
        steps: dict[int, Tally] = {}
        for bucket in self._seconds:
            steps.setdefault(bucket.at // step_s, Tally()).join(bucket.tally)
        nothing = Tally()
        return [
            point_of(steps.get(n, nothing), step_s) for n in range(last - span_s // step_s, last)
        ], step_s

    def highest(self, span_s: int) -> Point:
        """Return the highest rate of each figure in a span: of a step, or in long ones a minute."""
        if span_s not in SECOND_SPANS:
            return self.history.highest(span_s)
        points, _ = self.points(span_s)
        return Point(*(max(getattr(point, name) for point in points) for name in RATES))

    def _summed(self, from_s: int, to_s: int) -> Point:
        found = Tally()
        for bucket in self._seconds:
            if from_s <= bucket.at < to_s:
                found.join(bucket.tally)
        return point_of(found, to_s - from_s)

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
        ranked = sorted(
            self._last_minute(by).items(),
            key=lambda item: (-item[1].calls, -item[1].refused, item[0]),
        )
        return [
            Activity(name, t.calls, t.tokens, t.documents, t.refused, t.free)
            for name, t in ranked[:NAMES_MAX]
        ]

    def refusals(self) -> dict[str, int]:
        """Return how often what was refused in the last minute, the most frequent first."""
        counts = Counter({code: t.refused for code, t in self._last_minute("code").items()})
        return dict(counts.most_common(REFUSALS_MAX))

    def _last_minute(self, by: str) -> dict[str, Tally]:
        horizon = self._second() - QUANTILES_OVER_S
        found: dict[str, Tally] = {}
        for second, named in self._named:
            if second >= horizon:
                for (kind, name), tally in named.items():
                    if kind == by:
                        found.setdefault(name, Tally()).join(tally)
        return found

    def recent(self, count: int) -> list[CallView]:
        """Return the last calls, the newest first."""
        return [_view(ended, at_us) for _, ended, at_us in list(self._recent)[:count]]


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
        tokens=ended.tokens,
        documents=ended.documents,
        cost=credits_text(ended.amount),
        ms=round(ended.total_ms, 2),
        request_id=ended.request_id,
    )
