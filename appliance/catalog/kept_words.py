"""Kept words: what an operator said of a model that stays when its file is replaced.

Owns which keys of an entry are the operator's, and when they fit no longer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import tomlkit

from appliance.catalog.spec import ModelSpec
from appliance.catalog.user_catalog import UserCatalog, find, put

OWN = ("license", "commercial", "description")
"""Kept from the user's own entry alone: what is shipped says them of another file."""
GENERATED = "Added from "
"""How a description begins that was not written by the operator."""


def kept_words(
    before: ModelSpec | None, own: Mapping[str, Any], entry: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the keys that a replaced model's new entry keeps, and a line for each that is lost.

    `before` is the model as it was, `own` what the user's file said of it, `entry` the new one.
    """
    if before is None:
        return {}, []
    old, notes = before.entry, list[str]()
    kept: dict[str, Any] = {}
    if old.aliases:
        kept["aliases"] = list(old.aliases)
    kept |= {key: True for key in ("preload", "pin") if getattr(old, key)}
    if old.isolation is not None:
        kept["isolation"] = old.isolation
    kept |= {key: own[key] for key in OWN if key in own}
    if str(kept.get("description", "")).startswith(GENERATED):
        del kept["description"]
    if old.prompts is not None:
        if entry["pooling"] == "rank":
            notes.append("its prompts are not kept: they are for models that give vectors")
        else:
            kept["prompts"] = _inline(msgspec.to_builtins(old.prompts))
    if old.task == entry["task"]:
        kept["price"] = _price(before)
    else:
        notes.append(
            f"its price was for {before.tariff.unit} and is not kept: it does {entry['task']} now; "
            f"set one with: gigarouter models price {before.id} --realtime CREDITS"
        )
    return kept, notes


def replacement(
    user_catalog: UserCatalog, entry: Mapping[str, Any], notes: list[str]
) -> Callable[[Any], None]:
    """Return the change of the user's file that puts an entry and keeps the operator's words.

    When it is made, `notes` becomes a line for each word that is lost.
    """
    name = str(entry["id"])

    def change(document: Any) -> None:
        before = next((spec for spec in user_catalog.current() if spec.id == name), None)
        kept, lost = kept_words(before, find(document, name), entry)
        notes[:] = lost
        put(document, {**entry, **kept})

    return change


def _price(spec: ModelSpec) -> Any:
    table, price = _inline({"unit": spec.tariff.unit}), spec.entry.price
    for tier, amount in (("realtime", price.realtime), ("batch", price.batch)):
        if amount is not None:
            text = f"{amount:f}"
            table[tier] = tomlkit.value(text if "." in text else f"{text}.0")
    if price.tokens_per_document is not None:
        table["tokens_per_document"] = price.tokens_per_document
    return table


def _inline(values: Mapping[str, Any]) -> Any:
    table = tomlkit.inline_table()
    table.update(values)
    return table
