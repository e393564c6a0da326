"""Bucket: a token bucket that holds one minute's worth and is refilled continuously.

Owns its arithmetic, exact in integers.
"""

from dataclasses import dataclass

NS_PER_MINUTE = 60_000_000_000
NS_PER_SECOND = 1_000_000_000


@dataclass(slots=True)
class Bucket:
    """Units that are left of a rate a minute; never less than none, never more than the rate."""

    rate: int
    """Units a minute, and what a full bucket holds."""
    level: int
    """Units x NS_PER_MINUTE, so that refilling is exact."""
    at_ns: int

    @classmethod
    def full(cls, rate: int, now_ns: int) -> "Bucket":
        """Return a bucket that holds a minute's worth."""
        return cls(rate, rate * NS_PER_MINUTE, now_ns)

    def refill(self, now_ns: int) -> None:
        """Add the units that have accrued since the last refill."""
        self.level = min(self.rate * NS_PER_MINUTE, self.level + (now_ns - self.at_ns) * self.rate)
        self.at_ns = now_ns

    def change_rate(self, rate: int) -> None:
        """Hold another minute's worth from now on; what was taken of the last one counts."""
        taken = self.rate * NS_PER_MINUTE - self.level
        self.rate, self.level = rate, max(0, rate * NS_PER_MINUTE - taken)

    def take(self, units: int) -> bool:
        """Take units if they are there; say whether they were."""
        if self.level < units * NS_PER_MINUTE:
            return False
        self.level -= units * NS_PER_MINUTE
        return True

    def give_back(self, units: int) -> None:
        """Put units back that were taken and not used."""
        self.level = min(self.rate * NS_PER_MINUTE, self.level + units * NS_PER_MINUTE)

    def wait_s(self, units: int) -> int:
        """Return the whole seconds, 0 to 60, until `units` are there."""
        assert units <= self.rate, "they never will be"
        return max(0, -((self.level - units * NS_PER_MINUTE) // (self.rate * NS_PER_SECOND)))

    def remaining(self) -> int:
        """Return the whole units that are left."""
        return self.level // NS_PER_MINUTE

    def reset_s(self) -> int:
        """Return the whole seconds until it is full."""
        return self.wait_s(self.rate)
