"""Figures: numbers as pages show them, short and with their unit."""

from decimal import Decimal

from appliance.core.units import dollars

STEP = 1000
_COUNTS = ("", "k", "M", "B", "T")
_BYTES = ("B", "kB", "MB", "GB", "TB")


def count_text(count: int) -> str:
    """Return a number of things in three digits: `22.6M`."""
    number, suffix = _scaled(count, _COUNTS)
    return number + suffix


def bytes_text(count: int) -> str:
    """Return a number of bytes in three digits, in powers of 1,000: `45.9 MB`."""
    number, unit = _scaled(count, _BYTES)
    return f"{number} {unit}"


def grouped(count: int) -> str:
    """Return a whole number with its thousands apart: `8,192`."""
    return f"{count:,}"


def money_text(amount: Decimal) -> str:
    """Return an exact amount of credits, each one US dollar: `$0.008`, never an exponent."""
    shown = dollars(amount)
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _scaled(count: int, names: tuple[str, ...]) -> tuple[str, str]:
    """Return a number below 1,000 with at most one place, and the name of its power."""
    size, power = float(count), 0
    while round(size, 1) >= STEP and power < len(names) - 1:
        size /= STEP
        power += 1
    return f"{size:.1f}".rstrip("0").rstrip("."), names[power]
