"""WideSum: sums of amounts that may need more than 64 bits.

Owns how such a sum is split: SQL adds two parts, Python combines them. SQLite's SUM of integers
raises an error beyond int64, which is 9.2 million credits; all sales together may be more.
"""

from collections.abc import Sequence

HALF = 1_000_000_000


def wide_sum(expression: str) -> str:
    """Return the SQL of two columns: the sum of whole multiples of `HALF`, and that of the rest.

    Neither exceeds int64 below nine billion rows.
    """
    return f"COALESCE(SUM(({expression}) / {HALF}), 0), COALESCE(SUM(({expression}) % {HALF}), 0)"


def total(halves: Sequence[int]) -> int:
    """Return the sum of the two columns of `wide_sum`."""
    high, low = halves
    return high * HALF + low
