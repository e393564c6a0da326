"""WideSum: sums of amounts that may need more than 64 bits.

Owns the two halves in which SQL adds and Python puts together. SQLite's own SUM ends with an error
as soon as a sum of integers leaves int64, which is 9.2 million credits; the sales of all keys over
all time may be more.
"""

from collections.abc import Sequence

HALF = 1_000_000_000


def wide_sum(expression: str) -> str:
    """Return the SQL of two sums, one column each: of whole multiples of `HALF`, and of the rest.

    Neither leaves int64 below nine billion rows.
    """
    return f"COALESCE(SUM(({expression}) / {HALF}), 0), COALESCE(SUM(({expression}) % {HALF}), 0)"


def total(halves: Sequence[int]) -> int:
    """Return the sum that two columns of `wide_sum` make."""
    high, low = halves
    return high * HALF + low
