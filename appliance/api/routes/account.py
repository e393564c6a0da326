"""Account: what a key's holder may know of it."""

from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from appliance.accounts.key import Key
from appliance.api import exchange
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.clock import iso
from appliance.ledger.entry import Balance
from appliance.wire.keys import decimal_credits


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


@get("/account")
async def show_account(
    request: exchange.AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show the balance and limits of the key that asks, as bearer or as `?key=`."""
    text = exchange.credential(request)
    if text is None:
        text = request.query_params.get("key")
    key = services.authenticator.require(request, text, "usage", "infer")
    response = answer(account_view(key, await services.ledger.balance(key.id)))
    response.set_header("cache-control", "no-store")
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
