"""Units: money as integers, and its exact conversion from and to decimal text.

Owns the only arithmetic that converts credits to integers and back.
"""

from decimal import Decimal, Inexact, InvalidOperation, localcontext
from typing import NewType

Picocredits = NewType("Picocredits", int)
"""Money: 10^-12 credits (1 credit = 1 USD). Always an int that fits in 64 bits."""

PICOCREDITS_PER_CREDIT = 10**12
CREDITS_MAX = 1_000_000
"""The most credits of one amount; 64-bit integers hold 9.2 million."""


def picocredits(text: str | Decimal) -> Picocredits:
    """Return the exact integer for a decimal amount of credits.

    Raises:
        ValueError: not a finite decimal, finer than 10^-12, negative, or above `CREDITS_MAX`.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        message = f"{text!r} is not a decimal number"
        raise ValueError(message) from None
    if not amount.is_finite() or not 0 <= amount <= CREDITS_MAX:
        message = f"{text} is not between 0 and {CREDITS_MAX} credits"
        raise ValueError(message)
    whole = whole_picocredits(amount)
    if whole is None:
        message = f"{text} is finer than 10^-12 credits"
        raise ValueError(message)
    return whole


def whole_picocredits(amount: Decimal, *, parts: int = 1) -> Picocredits | None:
    """Return one of `parts` equal parts of an amount, or None if it is no whole number."""
    with localcontext() as context:
        # Without this trap, decimal arithmetic silently rounds to 28 digits.
        context.traps[Inexact] = True
        try:
            scaled = amount * PICOCREDITS_PER_CREDIT / parts
        except Inexact:
            return None
        return Picocredits(int(scaled)) if scaled == scaled.to_integral_value() else None


def credits_of(amount: int) -> Decimal:
    """Return the exact decimal credits of an integer amount, without trailing zeros."""
    whole = Decimal(amount).scaleb(-12).normalize()
    # normalize() turns 100 into 1E+2; quantize() restores the plain form.
    return whole.quantize(Decimal(1)) if whole == whole.to_integral_value() else whole


def credits_text(amount: int) -> str:
    """Return plain decimal text of an integer amount: `"0.000072"`, never an exponent."""
    return format(credits_of(amount), "f")


def dollars(amount: Decimal) -> str:
    """Return decimal credits as people write them, exact: `"$0.000072"`."""
    return f"{'-' * (amount < 0)}${abs(amount):f}"


def ceil_div(numerator: int, denominator: int) -> int:
    """Return the quotient rounded up, in integers."""
    return -(-numerator // denominator)
