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
NUMBER_WIDTH, SIZE_WIDTH, MS_WIDTH, MONEY_WIDTH = 5, 7, 7, 12
"""Cells that each kind of figure takes at most."""
CENTS_UP_TO = 100_000
MILLION = 1_000_000
DIGITS = 3
"""Leading digits of an amount below a dollar."""
DECIMALS = 9
"""Decimals of an amount at most: a token costs some billionths of a dollar."""


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


def money(value: Decimal | str | None, *, decimals: int = DECIMALS) -> str:
    """Return credits in dollars (`$5.00`, `$0.0123`): one credit is one US dollar.

    An amount below the last of so many decimals is said to be less than that; None is
    `unlimited`, and no number is `?`.
    """
    if value is None:
        return "unlimited"
    amount = _amount(value)
    if amount is None:
        return "?"
    if amount < 0:
        return f"-{money(-amount, decimals=decimals)}"
    if amount >= CENTS_UP_TO:
        return f"${amount:,.0f}" if amount < MILLION - 1 else f"${number(float(amount))}"
    if amount >= 1:
        return f"${amount:,.2f}"
    return "$0" if amount == 0 else _part_of_a_dollar(amount, decimals)


def _part_of_a_dollar(amount: Decimal, decimals: int) -> str:
    least = Decimal(1).scaleb(-decimals)
    if amount < least:
        shown = Decimal(1).scaleb(-min(decimals, DECIMALS - 1))
        return f"<${shown:f}"  # a digit less, for the room of the sign
    exponent = max(-decimals, min(-2, amount.adjusted() - DIGITS + 1))
    whole, _, rest = f"{amount.quantize(Decimal(1).scaleb(exponent)):f}".partition(".")
    return f"${whole}.{rest.rstrip('0'):0<2}"


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
