"""Figures: numbers as short text, never wider than the width that each function keeps.

Owns units and rounding. Negative amounts take a column more.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

KILO = 1000.0
HUNDRED = 100.0
"""From this value on no decimals are shown."""
LEAST = 0.0005
"""What is smaller rounds to nothing in the digits that there are."""
NUMBER_WIDTH, SIZE_WIDTH, MS_WIDTH, MONEY_WIDTH = 5, 7, 7, 9
"""Cells that each kind of figure takes at most."""
CENTS_UP_TO = 100_000
MILLION = 1_000_000


def size(count: float) -> str:
    """Return bytes as kB, MB, GB or TB."""
    unit, scaled = _scaled(count, ("B", "kB", "MB", "GB", "TB", "PB"), KILO)
    whole = unit in ("B", "kB", "MB")
    return f"{scaled:.0f} {unit}" if whole else f"{_leading(scaled)} {unit}"


def number(value: float) -> str:
    """Return a rate or a count with its leading digits."""
    if 0 < abs(value) < 1:
        if abs(value) < LEAST * 2:
            return "<.001"
        return f"{value:.2g}" if abs(value) >= LEAST * 20 else f"{value:.1g}"
    unit, scaled = _scaled(value, ("", "k", "M", "G", "T", "P"), KILO)
    is_whole = unit == "" and value == int(value)
    return f"{scaled:.0f}" if is_whole else f"{_leading(scaled)}{unit}"


def ms(value: float) -> str:
    """Return milliseconds, or seconds above a thousand of them, or minutes, or hours."""
    if _rounded(value) < KILO:
        return f"{_leading(value)} ms"
    if _rounded(value / KILO) < KILO:
        return f"{_leading(value / KILO)} s"
    minutes = value / KILO / 60
    return f"{minutes:.0f} min" if round(minutes) < KILO else f"{number(minutes / 60)} h"


def money(value: Decimal | str | None) -> str:
    """Return credits with their leading digits; None is `unlimited`, and no number is `?`."""
    if value is None:
        return "unlimited"
    amount = _amount(value)
    if amount is None or amount == 0:
        return "?" if amount is None else "0"
    if abs(amount) >= CENTS_UP_TO:
        return f"{amount:,.0f}" if abs(amount) < MILLION - 1 else number(float(amount))
    if abs(amount) >= 1:
        return f"{amount:,.2f}"
    if abs(amount) >= Decimal("0.0001"):
        return f"{amount:.3g}"
    millionths = f"{Decimal(f'{amount:.3g}') * MILLION:f}".rstrip("0").rstrip(".")
    return f"{millionths}\u00b5"


def _scaled(value: float, units: Sequence[str], step: float) -> tuple[str, float]:
    """Return the unit in which a value is below `step` once it is rounded, and the value in it."""
    for unit in units[:-1]:
        if _rounded(value) < step:
            return unit, value
        value /= step
    return units[-1], min(value, step - 1)


def _rounded(value: float) -> float:
    return abs(round(value)) if abs(value) >= HUNDRED - LEAST else abs(value)


def _leading(value: float) -> str:
    """Return one decimal, or none if there are three digits before it."""
    return f"{value:.1f}" if abs(round(value, 1)) < HUNDRED else f"{value:.0f}"


def _amount(value: Decimal | str) -> Decimal | None:
    """Return an amount as a finite number, or None if it is none."""
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    whole = int(seconds)
    for unit, each, below, part in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= each:
            return f"{whole // each}{unit} {whole % each // part}{below}"
    return f"{whole}s"


def bar(share: float, width: int) -> str:
    """Return a bar of `width` characters, filled from the left; `share` is 0 to 1."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "\u2588" * full + "\u2591" * (width - full)
