"""Checks: what is wrong with a value of a form, in words of the form. Pure.

Each returns an empty text if nothing is. The server's rules are used where they are in the shared
vocabulary; the rest it says itself.
"""

from collections.abc import Callable

from appliance.core.time_span import seconds_of
from appliance.core.units import picocredits

Check = Callable[[str], str]
PORT_MAX = 65_535
YES = ("y", "yes")
NO = ("", "n", "no")


def anything(_: str) -> str:
    """Accept every value."""
    return ""


def required(text: str) -> str:
    """Accept every value but an empty one."""
    return "" if text else "it must not be empty"


def amount(text: str) -> str:
    """Accept an amount of credits that the books can carry."""
    try:
        picocredits(text)
    except ValueError:
        return f"an amount like 5 or 0.25{_not(text)}"
    return ""


def more(text: str) -> str:
    """Accept an amount that is not nothing."""
    wrong = amount(text)
    return wrong or ("" if picocredits(text) else "an amount above 0")


def optional_amount(text: str) -> str:
    """Accept an amount, or nothing."""
    return amount(text) if text else ""


def amount_or_unlimited(text: str) -> str:
    """Accept an amount, nothing, or the word `unlimited`."""
    wrong = optional_amount(text)
    return "" if text.lower() == "unlimited" or not wrong else f"{wrong}; or: unlimited"


def optional_count(text: str) -> str:
    """Accept a whole number from 1 on, or nothing."""
    is_count = text.isascii() and text.isdecimal() and int(text[:30]) > 0
    return "" if not text or is_count else f"a whole number like 60{_not(text)}; empty: any"


def optional_time(text: str) -> str:
    """Accept a time from now on, `never` or nothing."""
    if text in ("", "never") or seconds_of(text):
        return ""
    return f"like 90m, 12h, 30d or 2w, or never{_not(text)}"


def needed_time(text: str) -> str:
    """Accept a time from now on, or `never`."""
    return optional_time(text) if text else "a time like 30d, or never"


def overlap(text: str) -> str:
    """Accept how long an older secret works: a time from now on, or 0."""
    return "" if text == "0" or seconds_of(text) else f"like 90m, 24h or 7d, or 0{_not(text)}"


def port(text: str) -> str:
    """Accept a port that a server can listen on."""
    if text.isascii() and text.isdecimal() and 0 < int(text[:30]) <= PORT_MAX:
        return ""
    return f"a port is 1 to {PORT_MAX:,}{_not(text)}"


def yes_or_no(text: str) -> str:
    """Accept yes, no or nothing."""
    return "" if text.lower() in (*YES, *NO) else f"yes or no{_not(text)}"


def repository(text: str) -> str:
    """Accept the name of a repository of the hub, with or without one of its files."""
    owner, _, name = text.partition(":")[0].partition("/")
    return "" if owner and name else "a repository like owner/name"


def _not(text: str) -> str:
    return f", not {text[:30]}" if text else ""
