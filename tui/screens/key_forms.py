"""Key forms: what is asked for before a key is made or changed, and the order that it becomes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from appliance.client import verbs
from appliance.wire.keys import (
    ExpireOrder,
    KeyView,
    LimitOrder,
    MintOrder,
    Plaintext,
    RotateOrder,
    TopUpOrder,
)
from tui.connection import Connection
from tui.inert import plain
from tui.screens import checks
from tui.screens.form import Field, Form

RATES = ("rpm", "tpm", "concurrency")
OVERLAP = "24h"
LIMITS = (
    Field("daily_budget", "Daily budget in USD", hint="none", check=checks.optional_amount),
    Field("rpm", "Requests a minute", hint="any", check=checks.optional_count),
    Field("tpm", "Tokens a minute", hint="any", check=checks.optional_count),
    Field("concurrency", "Calls at one time", hint="any", check=checks.optional_count),
    Field("models", "Models, separated by commas", hint="all", params=("model",)),
)


def minting(client: Connection) -> Form[Plaintext]:
    """Return the form that makes a key."""

    async def send(given: Mapping[str, str]) -> Plaintext:
        order = MintOrder(
            name=given["name"],
            credit=given["credit"] or "0",
            expires=given["expires"] or None,
            **_limits(given),
        )
        return await client.do(verbs.MINT, order=order)

    fields = (
        Field("name", "Name", hint="whose it is", check=checks.required),
        Field("credit", "Credit in USD, or unlimited", "5", check=checks.amount_or_unlimited),
        *_limit_fields({}),
        Field("expires", "Expires in", hint="never; 30d", check=checks.optional_time),
    )
    return Form("Mint a key", fields, send, done="Mint")


def limiting(client: Connection, key: KeyView) -> Form[str]:
    """Return the form that changes limits; only what was changed is sent."""
    now = {
        "daily_budget": "" if key.daily_budget is None else f"{key.daily_budget:f}",
        **{name: str(getattr(key, name) or "") for name in RATES},
        "models": ", ".join(key.models or ()),
    }

    async def send(given: Mapping[str, str]) -> str:
        wanted = _limits(given)
        order = LimitOrder(**{name: wanted[name] for name in wanted if given[name] != now[name]})
        if order == LimitOrder():
            return f"{plain(key.name)} stays as it is"
        await client.do(verbs.LIMIT, key.id, order=order)
        return f"{plain(key.name)} has other limits from now on"

    return Form(f"Limits of {plain(key.name)}", _limit_fields(now), send, done="Set")


def topping_up(client: Connection, key: KeyView) -> Form[str]:
    """Return the form that adds credit."""

    async def send(given: Mapping[str, str]) -> str:
        await client.do(verbs.TOP_UP, key.id, order=TopUpOrder(given["credit"]))
        return f"{plain(key.name)} has ${plain(given['credit'])} more"

    fields = [Field("credit", "Credit to add, in USD", "5", check=checks.more)]
    return Form(f"Top up {plain(key.name)}", fields, send, done="Add")


def expiring(client: Connection, key: KeyView) -> Form[str]:
    """Return the form that says when a key ends."""

    async def send(given: Mapping[str, str]) -> str:
        view = await client.do(verbs.EXPIRE, key.id, order=ExpireOrder(given["expires"]))
        until = f"works until {view.expires}" if view.expires else "has no end"
        return f"{plain(key.name)} {until}"

    fields = [
        Field("expires", "Ends in", hint="30d, 12h, or never", check=checks.needed_time),
    ]
    now = f"until {key.expires[:16]}Z" if key.expires else "without an end"
    return Form(f"{plain(key.name)} works {now}", fields, send, done="Set")


def rotating(client: Connection, key: KeyView) -> Form[Plaintext]:
    """Return the form that gives a key a new secret."""

    async def send(given: Mapping[str, str]) -> Plaintext:
        return await client.do(verbs.ROTATE, key.id, order=RotateOrder(given["overlap"]))

    fields = [
        Field("overlap", "The old one works for", OVERLAP, "0: not at all", checks.overlap),
    ]
    return Form(f"A new secret for {plain(key.name)}", fields, send, done="Make it")


def _limit_fields(now: Mapping[str, str]) -> tuple[Field, ...]:
    return tuple(replace(field, value=now.get(field.name, "")) for field in LIMITS)


def _limits(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the limits of a form as an order has them."""
    return {
        "daily_budget": given["daily_budget"] or None,
        **{name: int(given[name]) if given[name] else None for name in RATES},
        "models": [m.strip() for m in given["models"].split(",") if m.strip()] or None,
    }
