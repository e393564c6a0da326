"""Figures: numbers as short text.

Owns units and rounding.
"""

from decimal import Decimal, InvalidOperation

KILO = 1000.0
HUNDRED = 100.0
"""From this value on no decimals are shown."""


def size(count: float) -> str:
    """Return bytes as kB, MB or GB."""
    for unit, digits in (("B", 0), ("kB", 0), ("MB", 0), ("GB", 1)):
        if count < KILO or unit == "GB":
            return f"{count:.{digits}f} {unit}"
        count /= KILO
    raise AssertionError(count)


def number(value: float) -> str:
    """Return a rate or a count in about five characters, with its leading digits."""
    if 0 < abs(value) < 1:
        return f"{value:.2g}"
    for unit in ("", "k", "M", "G"):
        if abs(round(value)) < KILO or unit == "G":
            is_whole = abs(value) >= HUNDRED or (unit == "" and value == int(value))
            return f"{value:.{0 if is_whole else 1}f}{unit}"
        value /= KILO
    raise AssertionError(value)


def ms(value: float) -> str:
    """Return milliseconds, or seconds above a thousand of them."""
    if value >= KILO:
        return f"{value / KILO:.1f} s"
    return f"{value:.0f} ms" if value >= HUNDRED else f"{value:.1f} ms"


def money(value: Decimal | str | None) -> str:
    """Return credits with their leading digits; None is `unlimited`, and no number is `?`."""
    if value is None:
        return "unlimited"
    amount = _amount(value)
    if amount is None or amount == 0:
        return "?" if amount is None else "0"
    if abs(amount) >= 1:
        return f"{amount:,.2f}"
    if abs(amount) >= Decimal("0.0001"):
        return f"{amount:.3g}"
    return f"{amount * 1_000_000:.3g}\u00b5"  # millionths


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
