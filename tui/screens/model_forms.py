"""Model forms: what is asked for before a model is added or changed, and the orders of that."""

import asyncio
from collections.abc import Mapping

from appliance.client import verbs
from appliance.wire.downloads import HubModelOrder
from appliance.wire.models import AliasOrder, ModelView, PriceOrder
from tui.connection import Connection
from tui.inert import plain
from tui.screens import checks
from tui.screens.form import Field, Form

PROMPT_S = 3.0
"""Seconds that the form waits for a refusal of what it sent."""
ADD_FIELDS = (
    Field(
        "repo",
        "Repository",
        hint="owner/name or owner/name:file.gguf",
        check=checks.repository,
        params=("file",),
    ),
    Field("id", "Id for clients", hint="the repository's name if empty"),
    Field("pooling", "Pooling", hint="mean, cls, last, or what files say"),
    Field(
        "replace",
        "Replace that model",
        hint="yes: if there is one with this id",
        check=checks.yes_or_no,
    ),
)


def adding(client: Connection) -> Form[asyncio.Task[ModelView]]:
    """Return the form that adds a repository of the hub."""

    async def send(given: Mapping[str, str]) -> asyncio.Task[ModelView]:
        # A conversion takes minutes: only what is refused at once is said in the form.
        order = client.do(verbs.ADD_FROM_HUB, order=_hub_order(given))
        task = asyncio.ensure_future(order)
        done, _ = await asyncio.wait({task}, timeout=PROMPT_S)
        for each in done:
            each.result()
        return task

    return Form("Add a model from the hub", ADD_FIELDS, send, done="Add")


def editing(client: Connection, model: ModelView) -> Form[list[str]]:
    """Return the form that changes a model's price and its other names."""
    price, names = f"{model.pricing.realtime:f}", ", ".join(model.aliases)
    set_already: set[str] = set()
    """What was done before the rest was refused: it is not sent again."""

    async def send(given: Mapping[str, str]) -> list[str]:
        said = []
        if given["price"] not in (price, *set_already):
            order = PriceOrder(model.id, given["price"])
            await client.do(verbs.PRICE_MODEL, order=order)
            set_already.add(given["price"])
        if set_already:
            said.append("New calls pay the new price")
        if given["aliases"] != names:
            wanted = [name.strip() for name in given["aliases"].split(",") if name.strip()]
            await client.do(verbs.ALIAS_MODEL, order=AliasOrder(model.id, wanted))
            said.append(f"{plain(model.id)} has other names")
        return said

    unit = f"USD for {model.pricing.unit}"
    fields = [
        Field("price", unit, price, check=checks.amount, params=("realtime",)),
        Field("aliases", "Other names, with commas between", names, hint="none"),
    ]
    title = f"{plain(model.id)} (half the price in the batch tier)"
    return Form(title, fields, send, done="Set")


def _hub_order(given: Mapping[str, str]) -> HubModelOrder:
    repo, _, file = given["repo"].partition(":")
    return HubModelOrder(
        repo=repo,
        file=file or None,
        id=given["id"] or None,
        pooling=given["pooling"] or None,
        replace=given["replace"].lower() in checks.YES,
    )
