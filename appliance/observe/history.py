"""History: what was asked of models in each minute of an hour and in each hour of thirty days.

Owns these steps in memory, of each model and of all together, and the finished minutes that wait to
be written. An earlier process's steps come with it. Bounded: as many steps and models as are kept,
and `WAITING_MAX` rows that could not be written.
"""

from collections import deque
from collections.abc import Sequence

from appliance.core.clock import Clock
from appliance.core.tally import EVERY_MODEL, MINUTES_PER_HOUR, MODELS_MAX, MinuteRow, Past, Tally
from appliance.observe.steps import SECONDS_PER_MINUTE, Steps
from appliance.observe.timeline import NS_PER_S, Timeline
from appliance.wire.stats import Point

SPANS = {3600: 60, 86_400: 3600, 2_592_000: 28_800}
"""Histories that can be asked for, in seconds, and the seconds of one step."""
OTHER = "other"
WAITING_MAX = 10_000
"""Rows that wait to be written; if the disk takes none, the oldest are given up."""
TRUSTED_AFTER_S = 3600
"""How long a process runs before its clock is believed so far that rows are removed for their age:
machines without a battery begin in another year."""


class History:
    """Counts by the minute and by the hour; call on the loop's thread."""

    def __init__(self, clock: Clock, past: Past = Past()) -> None:  # noqa: B008 - it is immutable
        self._steps: dict[str, Steps] = {EVERY_MODEL: Steps()}
        for minute in past.minutes:
            self._steps.setdefault(minute.model, Steps()).minutes[minute.at] = minute.tally
        for hour in past.hours:
            self._steps.setdefault(hour.model, Steps()).hours[hour.at] = hour
        last = max((row.at for row in past.minutes), default=0)
        self._timeline = Timeline(clock, last * SECONDS_PER_MINUTE)
        self._began_ns, self._clock = clock.monotonic_ns(), clock
        self._at = self._minute()
        self._running: dict[str, Tally] = {}
        """Of the minute `_at`, by model."""
        self._forgot_at = -1
        """The hour in which steps were forgotten last."""
        self._waiting: deque[MinuteRow] = deque(maxlen=WAITING_MAX)

    def __repr__(self) -> str:
        """Say how much is remembered, and what is not written yet."""
        return f"<History [{len(self._steps) - 1} models | {len(self._waiting)} rows wait]>"

    def add(self, model: str, tally: Tally) -> None:
        """Count what one model did now; without a name it counts for all together alone."""
        self._turn()
        self._running.setdefault(EVERY_MODEL, Tally()).join(tally)
        if model:
            self._running.setdefault(self._own_or_other(model), Tally()).join(tally)

    def points(self, span_s: int, model: str = EVERY_MODEL) -> tuple[list[Point], int]:
        """Return the steps of one of `SPANS` as rates a second, and the seconds of a step.

        Oldest first; the last one runs, and its rate is over its seconds so far.
        """
        self._turn()
        step_s = SPANS[span_s]
        now_s = self._timeline.now_s()
        last = now_s // step_s
        sums = {n: Tally() for n in range(last - span_s // step_s, last + 1)}
        running = (self._at * SECONDS_PER_MINUTE, self._running.get(model, Tally()))
        for at_s, tally in (*self._of(model).within(span_s), running):
            if at_s // step_s in sums:
                sums[at_s // step_s].join(tally)
        *whole, runs = sums.values()
        # A call in the first moments of an hour is no rate of an hour.
        elapsed_s = max(step_s // 60, now_s % step_s)
        return [*(point_of(sum_, step_s) for sum_ in whole), point_of(runs, elapsed_s)], step_s

    def highest(self, span_s: int, model: str = EVERY_MODEL) -> Point:
        """Return the highest rate a second of each figure, over a minute within the span."""
        self._turn()
        now_s = self._timeline.now_s()
        from_s = now_s // SPANS[span_s] * SPANS[span_s] - span_s
        found = self._of(model).highest(span_s, from_s, now_s)
        found.raise_to(self._running.get(model, Tally()))
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
            self._steps.setdefault(model, Steps()).close(model, self._at, tally)
        self._running = {}
        if self._at // MINUTES_PER_HOUR != self._forgot_at:
            self._forgot_at = self._at // MINUTES_PER_HOUR
            self._forget()

    def _forget(self) -> None:
        """Keep as many steps as the store does, and no model that has none of them.

        Once an hour: until then there may be an hour of minutes more.
        """
        now = self.trusted_minute()
        for steps in self._steps.values():
            steps.forget(now)
        oldest = min(self._steps[EVERY_MODEL].hours, default=0)
        for model in [m for m, s in self._steps.items() if max(s.hours, default=-1) < oldest]:
            if model != EVERY_MODEL:
                del self._steps[model]

    def _of(self, model: str) -> Steps:
        """Return the steps of a model to read; one that nobody called has none."""
        return self._steps.get(model) or Steps()

    def _own_or_other(self, model: str) -> str:
        if model in self._running or model in self._steps:
            return model
        return model if len(self._steps.keys() | self._running.keys()) <= MODELS_MAX else OTHER


def point_of(tally: Tally, seconds: float) -> Point:
    """Return what a tally is a second."""
    return Point(
        calls=tally.calls / seconds,
        tokens=tally.tokens / seconds,
        documents=tally.documents / seconds,
        errors=tally.refused / seconds,
        free=tally.free / seconds,
    )
