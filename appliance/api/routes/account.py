"""Account: a key's balance, limits and usage, for its holder."""

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from appliance.accounts.key import Key
from appliance.api.examples import examples
from appliance.api.page import answer_page, is_wanted
from appliance.api.request import AnyRequest, credential_of
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.clock import iso, utc_day
from appliance.core.units import credits_of
from appliance.ledger.entry import Balance
from appliance.ledger.usage import Usage
from appliance.wire.keys import decimal_credits

INTERVAL = "60s"
"""Of `rate_limit`: our rates are a minute's."""
ANY = -1
"""How OpenRouter writes that there is no such limit."""


class AccountView(msgspec.Struct, frozen=True):
    """`GET /account`; money in credits (USD)."""

    key: str
    """First and last characters only."""
    name: str
    balance: Decimal | None
    """None: unlimited."""
    spent_today: Decimal
    daily_budget: Decimal | None
    limits: dict[str, Any]
    created: str
    expires: str | None


class RateView(msgspec.Struct, frozen=True):
    """How often a key may call."""

    requests: int
    interval: str = INTERVAL


class CurrentKey(msgspec.Struct, frozen=True):
    """A key in OpenRouter's words; money in credits (USD)."""

    label: str
    """First and last characters only."""
    limit: Decimal | None
    """Its daily budget if it has one, else all that it was ever granted; None: unlimited."""
    limit_reset: str | None
    limit_remaining: Decimal | None
    """What may be spent now; None: unlimited."""
    usage: Decimal
    usage_daily: Decimal
    usage_weekly: Decimal
    """Since Monday, UTC."""
    usage_monthly: Decimal
    is_free_tier: bool
    """Always false: there is no free tier."""
    rate_limit: RateView
    expires_at: str | None


class CurrentKeyAnswer(msgspec.Struct, frozen=True):
    """`GET /v1/key`."""

    data: CurrentKey


@get("/v1/key")
async def show_current_key(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show the key of the request in OpenRouter's shape."""
    key = services.authenticator.require(request, credential_of(request), "usage", "infer")
    view = current_key(
        key,
        services.ledger.balance(key.id),
        await services.admin.usage.days(key.id),
        utc_day(services.clock.wall_us()),
    )
    response = answer(CurrentKeyAnswer(view))
    response.set_header("cache-control", "no-store")
    return response


def current_key(key: Key, balance: Balance, usage: Sequence[Usage], today: int) -> CurrentKey:
    """Return a key in OpenRouter's words; `usage` is by day."""

    def since(day: int) -> int:
        return sum(each.amount - each.refunded for each in usage if int(each.group) >= day)

    date_today = date(1970, 1, 1) + timedelta(days=today)
    budget, used = key.limits.daily_budget, since(0)
    limits = [] if key.unlimited else [balance.posted + used]
    remaining = [] if key.unlimited else [balance.available]
    if budget is not None:
        limits = [budget]
        remaining.append(max(0, budget - balance.spent_today - balance.held))
    return CurrentKey(
        label=key.hint,
        limit=decimal_credits(min(limits, default=None)),
        limit_reset=None if budget is None else "daily",
        limit_remaining=decimal_credits(min(remaining, default=None)),
        usage=credits_of(used),
        usage_daily=credits_of(balance.spent_today),
        usage_weekly=credits_of(since(today - date_today.weekday())),
        usage_monthly=credits_of(since(today - date_today.day + 1)),
        is_free_tier=False,
        rate_limit=RateView(ANY if key.limits.rpm is None else key.limits.rpm),
        expires_at=iso(key.expires_us),
    )


@get("/account")
async def show_account(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show the balance and limits of the key of the request, as bearer or as `?key=`.

    A browser that has no key yet is sent the page on which it is pasted.
    """
    text = credential_of(request)
    if text is None:
        text = request.query_params.get("key")
    if text is None and is_wanted(request):
        models = (await services.admin.models.all()).data
        shown = examples(request, services, models)
        return answer_page(request, services.authenticator.clients, "account.html", snippets=shown)
    key = services.authenticator.require(request, text, "usage", "infer")
    response = answer(account_view(key, services.ledger.balance(key.id)))
    response.set_header("cache-control", "no-store")
    response.set_header("vary", "accept")
    return response


def account_view(key: Key, balance: Balance) -> AccountView:
    """Return what the key's holder is shown."""
    limits = key.limits
    return AccountView(
        key=key.hint,
        name=key.name,
        balance=None if key.unlimited else decimal_credits(balance.available),
        spent_today=decimal_credits(balance.spent_today) or Decimal(0),
        daily_budget=decimal_credits(limits.daily_budget),
        limits={
            "requests_per_minute": limits.rpm,
            "tokens_per_minute": limits.tpm,
            "concurrency": limits.concurrency,
            "models": limits.models,
        },
        created=iso(key.created_us) or "",
        expires=iso(key.expires_us),
    )
