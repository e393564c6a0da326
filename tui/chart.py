"""Chart: a history drawn as an area of braille dots with two axes, as lines of text.

Owns scale, axes and dots.
"""

from collections.abc import Sequence

from tui import figures
from tui.widgets.lines import Line, right

AXIS = 7
"""Width in cells of the vertical axis with its numbers."""
DOTS_HIGH = 4
FULL = (0x00, 0x40, 0x44, 0x46, 0x47)
"""Braille patterns (offsets from U+2800) with 0 to 4 dots in the left column, from below."""
FULL_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)
STEPS = (1, 2, 5, 10)
LEAST = 1e-9
"""Of an axis that is not empty: below the smallest floats there is no round number."""
LOOKS = ("low", "middle", "high")


def chart(values: Sequence[float], width: int, height: int, span: str) -> list[Line]:
    """Return `height` lines of `width` cells: the oldest value on the left, 0 at the bottom."""
    rows, columns = height - 1, width - AXIS
    if rows < 1 or columns < 1:
        return []
    top = ceiling(max(values, default=0.0))
    dots = [round(value / top * rows * DOTS_HIGH) for value in spread(values, columns * 2)]
    lines: list[Line] = []
    for row in range(rows):
        floor = (rows - 1 - row) * DOTS_HIGH
        body = "".join(
            _cell(_within(dots[x] - floor), _within(dots[x + 1] - floor))
            for x in range(0, columns * 2, 2)
        )
        look = LOOKS[min(2, (rows - 1 - row) * 3 // rows)]
        lines.append(((_label(row, rows, top), "dim"), (body, look)))
    ago = f"-{span}"
    rest = max(0, columns - len(ago) - len("now"))
    lines.append(((right("0", AXIS - 2) + " \u2514" + ago + "\u2500" * rest + "now", "dim"),))
    return lines


def ceiling(highest: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, … that is not below a value: a steady axis."""
    if highest < LEAST:
        return 1.0 if highest <= 0 else LEAST
    power = 1.0
    while power > highest:
        power /= 10
    while power * 10 < highest:
        power *= 10
    return next(power * step for step in STEPS if power * step >= highest)


def spread(values: Sequence[float], count: int) -> list[float]:
    """Return `count` values: each one repeated, or the largest of each group of neighbours."""
    if not values:
        return [0.0] * count
    have = len(values)
    found = []
    for n in range(count):
        first = n * have // count
        last = max(first + 1, (n + 1) * have // count)
        found.append(max(values[first:last]))
    return found


def _cell(left: int, right_: int) -> str:
    # A space: some fonts draw the empty pattern as hollow dots.
    return chr(0x2800 | FULL[left] | FULL_RIGHT[right_]) if left or right_ else " "


def _within(dots: int) -> int:
    return max(0, min(DOTS_HIGH, dots))


def _label(row: int, rows: int, top: float) -> str:
    """Return the axis beside a row: the top row and an exact middle row have a number."""
    if row and (row * 2 != rows or rows < DOTS_HIGH):
        return " " * (AXIS - 1) + "\u2502"
    value = top / 2 if row else top
    return right(figures.number(value), AXIS - 2) + " \u2524"
