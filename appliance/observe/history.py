"""History: what was asked of models in each minute of an hour and in each hour of thirty days.

Owns these steps in memory, of all models together, and the finished minutes of each model that
wait to be written. An earlier process's steps come with it. Bounded: as many steps as are kept, and
`WAITING_MAX` rows that could not be written.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from appliance.core.clock import Clock
from appliance.core.tally import (
    EVERY_MODEL,
    HOURS_KEPT,
    MINUTES_KEPT,
    MINUTES_PER_HOUR,
    HourRow,
    MinuteRow,
    Past,
    Tally,
)
from appliance.observe.timeline import NS_PER_S, Timeline
from appliance.wire.stats import Point

SECONDS_PER_MINUTE, SECONDS_PER_HOUR = 60, 3600
SPANS = {3600: 60, 86_400: 3600, 2_592_000: 28_800}
"""Histories that can be asked for, in seconds, and the seconds of one step."""
MODELS_MAX = 200
"""Models with rows of their own in one minute; the others share `OTHER`."""
OTHER = "other"
WAITING_MAX = 10_000
"""Rows that wait to be written; if the disk takes none, the oldest are given up."""
TRUSTED_AFTER_S = 3600
"""How long a process runs before its clock is believed so far that rows are removed for their age:
machines without a battery begin in another year."""


class History:
    """Counts by the minute and by the hour; call on the loop's thread."""

    def __init__(self, clock: Clock, past: Past = Past()) -> None:  # noqa: B008 - it is immutable
        self._minutes = {row.at: row.tally for row in past.minutes}
        self._hours = {row.at: row for row in past.hours}
        last = max((row.at for row in past.minutes), default=0)
        self._timeline = Timeline(clock, last * SECONDS_PER_MINUTE)
        self._began_ns, self._clock = clock.monotonic_ns(), clock
        self._at = self._minute()
        self._running: dict[str, Tally] = {}
        """Of the minute `_at`, by model."""
        self._waiting: deque[MinuteRow] = deque(maxlen=WAITING_MAX)

    def __repr__(self) -> str:
        """Say how much is remembered, and what is not written yet."""
        kept = f"{len(self._minutes)} minutes, {len(self._hours)} hours"
        return f"<History [{kept} | {len(self._waiting)} rows wait]>"

    def add(self, model: str, tally: Tally) -> None:
        """Count what one model did now; without a name it counts for all together alone."""
        self._turn()
        self._running.setdefault(EVERY_MODEL, Tally()).join(tally)
        if model:
            is_known = model in self._running or len(self._running) <= MODELS_MAX
            self._running.setdefault(model if is_known else OTHER, Tally()).join(tally)

    def points(self, span_s: int) -> tuple[list[Point], int]:
        """Return the steps of one of `SPANS` as rates a second, and the seconds of a step.

        Oldest first; the last one runs, and its rate is over its seconds so far.
        """
        step_s = SPANS[span_s]
        now_s = self._timeline.now_s()
        last = now_s // step_s
        sums: dict[int, Tally] = {}
        for at_s, tally in self._steps(span_s):
            sums.setdefault(at_s // step_s, Tally()).join(tally)
        nothing = Tally()
        points = [
            point_of(sums.get(n, nothing), step_s) for n in range(last - span_s // step_s, last)
        ]
        # A call in the first moments of an hour is no rate of an hour.
        elapsed_s = max(step_s // 60, now_s % step_s)
        return [*points, point_of(sums.get(last, nothing), elapsed_s)], step_s

    def highest(self, span_s: int) -> Point:
        """Return the highest rate a second of each figure, over a minute within the span."""
        now_s = self._timeline.now_s()
        from_s = now_s // SPANS[span_s] * SPANS[span_s] - span_s
        found = Tally()
        if span_s == SECONDS_PER_HOUR:
            for at_s, tally in self._steps(span_s):
                if from_s <= at_s <= now_s:
                    found.raise_to(tally)
        for row in self._hours.values():
            if span_s > SECONDS_PER_HOUR and from_s <= row.at * SECONDS_PER_HOUR <= now_s:
                found.raise_to(row.highest)
        found.raise_to(self._running.get(EVERY_MODEL, Tally()))
        return point_of(found, SECONDS_PER_MINUTE)

    def close_minute(self) -> None:
        """Let the minute that runs be written, too: the process ends."""
        self._close()

    def take(self, rows_max: int) -> list[MinuteRow]:
        """Return finished minutes that wait to be written, the oldest first."""
        self._turn()
        return [self._waiting.popleft() for _ in range(min(rows_max, len(self._waiting)))]

    def give_back(self, rows: Sequence[MinuteRow]) -> None:
        """Let rows wait again that could not be written; if they are too many, not the oldest."""
        room = WAITING_MAX - len(self._waiting)
        self._waiting.extendleft(reversed(rows[max(0, len(rows) - room) :]))

    def trusted_minute(self) -> int | None:
        """Return the minute now, by which rows may be removed; None: it is not sure yet."""
        up_s = (self._clock.monotonic_ns() - self._began_ns) // NS_PER_S
        return self._minute() if up_s >= TRUSTED_AFTER_S else None

    def _minute(self) -> int:
        return self._timeline.now_s() // SECONDS_PER_MINUTE

    def _turn(self) -> None:
        """Close the minute that ran, if it is over."""
        at = self._minute()
        if at != self._at:
            self._close()
            self._at = at

    def _close(self) -> None:
        for model, tally in self._running.items():
            self._waiting.append(MinuteRow(self._at, model, tally))
        whole = self._running.get(EVERY_MODEL)
        self._running = {}
        if whole is None:
            return
        self._minutes.setdefault(self._at, Tally()).join(whole)
        hour = self._at // MINUTES_PER_HOUR
        row = self._hours.setdefault(hour, HourRow(hour, Tally(), Tally()))
        row.tally.join(whole)
        row.highest.raise_to(self._minutes[self._at])
        self._forget()

    def _forget(self) -> None:
        """Keep as many minutes and hours as the store does, the newest ones."""
        now = self.trusted_minute()
        for steps, kept, minutes in (
            (self._minutes, MINUTES_KEPT, 1),
            (self._hours, HOURS_KEPT, MINUTES_PER_HOUR),
        ):
            ahead = () if now is None else [at for at in steps if at > now // minutes]
            for at in (*ahead, *sorted(steps.keys() - set(ahead))[:-kept]):
                del steps[at]

    def _steps(self, span_s: int) -> Iterable[tuple[int, Tally]]:
        """Yield the seconds of each step that is kept, with what it had."""
        self._turn()
        if span_s == SECONDS_PER_HOUR:
            yield from ((at * SECONDS_PER_MINUTE, tally) for at, tally in self._minutes.items())
        else:
            yield from ((at * SECONDS_PER_HOUR, row.tally) for at, row in self._hours.items())
        running = self._running.get(EVERY_MODEL)
        if running is not None:
            yield self._at * SECONDS_PER_MINUTE, running


def point_of(tally: Tally, seconds: float) -> Point:
    """Return what a tally is a second."""
    return Point(
        calls=tally.calls / seconds,
        tokens=tally.tokens / seconds,
        documents=tally.documents / seconds,
        errors=tally.refused / seconds,
        free=tally.free / seconds,
    )
