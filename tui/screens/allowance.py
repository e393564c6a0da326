"""Allowance: what a key may do, and how much of each limit is used.

Pure: views in, text out.
"""

from collections.abc import Iterator
from decimal import Decimal

from rich.text import Text

from appliance.wire.keys import KeyView
from appliance.wire.stats import Activity, Stats
from tui import figures

BAR = 12
EMPTY_SHARE = 0.05
"""Below this share of what was granted, a key that was just refused for lack of credit is empty."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NO_CREDIT = "insufficient_credit"


def granted(key: KeyView, spent: Decimal) -> Decimal:
    """Return the credits that a key was ever given, by what it has and what it ever spent."""
    return max(key.credit or Decimal(0), Decimal(0)) + max(spent, Decimal(0))


def share_left(key: KeyView, spent: Decimal) -> float:
    """Return which share of what was granted to a key is left; 0 to 1."""
    whole = granted(key, spent)
    return float(max(key.credit or Decimal(0), Decimal(0)) / whole) if whole else 0.0


def state_of(key: KeyView, spent: Decimal, stats: Stats | None) -> str:
    """Return whether a key works, in a word or two, and if not, why."""
    if key.forgotten or key.revoked:
        return "forgotten" if key.forgotten else "revoked"
    if key.expires and stats is not None and key.expires <= stats.now:
        return "expired"
    if key.credit is not None and (
        key.credit <= 0 or (share_left(key, spent) < EMPTY_SHARE and _is_refused(key, stats))
    ):
        return "no credit"
    if key.daily_budget is not None and key.spent_today >= key.daily_budget:
        return "budget used"
    return f"until {_day(key.expires, stats)}" if key.expires else "live"


def _day(moment: str, stats: Stats | None) -> str:
    """Return the day of a moment as in `25 Dec`, or its year if that is another one."""
    year, month, day = moment[:10].split("-")
    if stats is not None and not stats.now.startswith(year):
        return year
    return f"{int(day)} {MONTHS[int(month) - 1]}"


def _is_refused(key: KeyView, stats: Stats | None) -> bool:
    last = next((call for call in stats.recent if call.key == key.name), None) if stats else None
    return last is not None and last.code == NO_CREDIT


def limits_of(key: KeyView) -> str:
    """Return the limits of a key in a few words, the daily budget first."""
    limits = [] if key.daily_budget is None else [f"{figures.money(key.daily_budget)} a day"]
    limits += [
        f"{figures.number(value)}{unit}"
        for value, unit in (
            (key.rpm, " requests/min"),
            (key.tpm, " tokens/min"),
            (key.concurrency, " at once"),
        )
        if value is not None
    ]
    return ", ".join(limits) or "none"


def allowances(
    key: KeyView, spent: Decimal, activity: Activity | None
) -> Iterator[tuple[str, Text]]:
    """Yield each limit of a key by its name, with what is used of it."""
    requests, tokens = 0, 0
    if activity:
        # Each of them counts against the limit of requests, whatever it was answered.
        requests = activity.calls + activity.errors + activity.free
        tokens = activity.tokens
    if key.credit is None:
        yield "credit", Text(f"unlimited; {figures.money(spent)} used so far")
    else:
        whole = granted(key, spent)
        yield "credit", _used(spent, whole, f"of {figures.money(whole)} granted")
    budget = key.daily_budget
    if budget is None:
        yield "a day", Text(f"no limit; {figures.money(key.spent_today)} used today")
    else:
        yield "a day", _used(key.spent_today, budget, f"of {figures.money(budget)} today")
    for name, used, most in (
        ("requests a minute", requests, key.rpm),
        ("tokens a minute", tokens, key.tpm),
    ):
        if most is None:
            yield name, Text(f"no limit; {figures.number(used)} in the last minute")
        else:
            said = f"{figures.number(used)} of {figures.number(most)} in the last minute"
            yield name, Text(f"{figures.bar(used / most, BAR)} {said}")
    at_once = "no limit" if key.concurrency is None else figures.number(key.concurrency)
    yield "calls at one time", Text(at_once)


def _used(used: Decimal, whole: Decimal, of: str) -> Text:
    share = float(used / whole) if whole else 1.0
    return Text(f"{figures.bar(share, BAR)} {figures.money(used)} {of}")
