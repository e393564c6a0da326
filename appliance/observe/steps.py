"""Steps: the minutes of an hour and the hours of thirty days of one model, or of all together.

Owns what each of them had, and how many there are: the newest ones in which anything happened.
"""

from collections.abc import Sequence

from appliance.core.tally import HOURS_KEPT, MINUTES_KEPT, MINUTES_PER_HOUR, HourRow, Tally

SECONDS_PER_MINUTE, SECONDS_PER_HOUR = 60, 3600


class Steps:
    """Counts by the minute and by the hour."""

    def __init__(self) -> None:
        self.minutes: dict[int, Tally] = {}
        """By minutes since the epoch."""
        self.hours: dict[int, HourRow] = {}
        """By hours since the epoch."""

    def __repr__(self) -> str:
        """Say how much is remembered."""
        return f"<Steps [{len(self.minutes)} minutes, {len(self.hours)} hours]>"

    def close(self, model: str, at: int, whole: Tally) -> None:
        """Add what a minute had to it and to its hour."""
        self.minutes.setdefault(at, Tally()).join(whole)
        hour = at // MINUTES_PER_HOUR
        row = self.hours.setdefault(hour, HourRow(hour, model, Tally(), Tally()))
        row.tally.join(whole)
        row.highest.raise_to(self.minutes[at])

    def forget(self, now: int | None) -> None:
        """Keep as many as are to be kept.

        With `now`, in minutes since the epoch, also none that is ahead of it or too old.
        """
        for steps, kept, minutes in (
            (self.minutes, MINUTES_KEPT, 1),
            (self.hours, HOURS_KEPT, MINUTES_PER_HOUR),
        ):
            if now is not None:
                last = now // minutes
                for at in [at for at in steps if not last - kept < at <= last]:
                    del steps[at]
            if len(steps) > kept:
                for at in sorted(steps)[:-kept]:
                    del steps[at]

    def within(self, span_s: int) -> Sequence[tuple[int, Tally]]:
        """Return the steps that a span is drawn of: when each began in seconds, and what it had."""
        if span_s == SECONDS_PER_HOUR:
            return [(at * SECONDS_PER_MINUTE, tally) for at, tally in self.minutes.items()]
        return [(at * SECONDS_PER_HOUR, row.tally) for at, row in self.hours.items()]

    def highest(self, span_s: int, from_s: int, to_s: int) -> Tally:
        """Return the most of each figure that a minute had from one moment to another."""
        found = Tally()
        if span_s == SECONDS_PER_HOUR:
            for at, tally in self.minutes.items():
                if from_s <= at * SECONDS_PER_MINUTE <= to_s:
                    found.raise_to(tally)
            return found
        for at, row in self.hours.items():
            if from_s <= at * SECONDS_PER_HOUR <= to_s:
                found.raise_to(row.highest)
        return found
