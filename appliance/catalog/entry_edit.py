"""Entry edit: change the price and the names of a model in the user's `models.toml`."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import tomlkit

from appliance.catalog.user_catalog import DoesNotFit, UserCatalog, table_of
from appliance.core.errors import InvalidRequest, ModelNotFound

PRICE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,18})?", re.ASCII)
"""A price as an operator enters it: a decimal in credits."""


@dataclass(frozen=True, slots=True)
class EntryEdit:
    """Changes entries of the user's catalogue."""

    user_catalog: UserCatalog

    def set_price(self, name: str, *, realtime: str, batch: str | None) -> None:
        """Write a model's price to the user's catalogue; other fields of the entry do not change.

        Raises:
            InvalidRequest: a price is not a decimal, or cannot be charged exactly.
        """
        price = tomlkit.inline_table()
        for tier, text in (("realtime", realtime), ("batch", batch)):
            if text is not None and PRICE.fullmatch(text) is None:
                raise InvalidRequest(f"{tier} is a decimal like 0.008, not {text!r}", param=tier)
        # The batch price is always written: otherwise that of the shipped entry would stay.
        half = f"{Decimal(realtime) / 2:f}"
        for tier, text in (("realtime", realtime), ("batch", half if batch is None else batch)):
            price[tier] = tomlkit.value(text if "." in text else f"{text}.0")

        def change(document: Any) -> None:
            table = table_of(document, name)
            old = table.get("price", {})
            if "unit" in old:
                price["unit"] = old["unit"]
            if "tokens_per_document" in old:
                price["tokens_per_document"] = old["tokens_per_document"]
            table["price"] = price

        self._write(change, what="price", before=": price.", param="realtime")

    def set_aliases(self, name: str, aliases: Sequence[str]) -> None:
        """Replace a model's aliases in the user's catalogue.

        Raises:
            InvalidRequest: a name is malformed, or belongs to another model.
        """
        current = self.user_catalog.current()
        for alias in aliases:
            with suppress(ModelNotFound):
                owner = current.find(alias).id
                if owner != name:
                    raise InvalidRequest(f"{alias!r} is a name of {owner}", param="aliases")

        def change(document: Any) -> None:
            table_of(document, name)["aliases"] = list(aliases)

        self._write(change, what="aliases", before="aliases: ", param="aliases")

    def _write(self, change: Callable[[Any], None], *, what: str, before: str, param: str) -> None:
        """Change the user's file; `before` is the text before the reason in the error's message."""
        try:
            with self.user_catalog.draft(change):
                pass
        except DoesNotFit as error:
            reason = str(error).rpartition(before)[2]
            raise InvalidRequest(f"{what}: {reason}", param=param) from None
