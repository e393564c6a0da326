"""Admin: what an operator does: mint, show, top up and revoke keys; list and add models.

Owns the order of memory and store in each of these. The server offers it over HTTP and the command
line uses it directly when no server runs, so both do the same. Deliberately knows no HTTP.
"""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from appliance.accounts import credential
from appliance.accounts.key import (
    UNLIMITED,
    Key,
    KeyLimits,
    checked_credit,
    checked_expiry_s,
    checked_models,
    checked_name,
    checked_rate,
)
from appliance.accounts.keyring import Keyring
from appliance.catalog.catalog import Catalog, load, shipped_path
from appliance.catalog.shelf import Shelf
from appliance.catalog.spec import ModelSpec
from appliance.core import ids
from appliance.core.clock import Clock, iso
from appliance.core.limits import Limits
from appliance.core.units import Picocredits, credits_of
from appliance.engine.loader import sha256_of
from appliance.engine.tuning import Tuning
from appliance.ledger import books
from appliance.ledger.entry import Balance
from appliance.scheduler.presence import OnDisk, Presence
from appliance.store.datadir import DataDir
from appliance.store.writer import Writer
from appliance.wire.admin import (
    AddModelOrder,
    KeyView,
    MintedKey,
    MintOrder,
    ModelList,
    ModelView,
    PriceView,
    TopUpOrder,
    TuningView,
    decimal_credits,
)

MODELS_BORN = 1_767_225_600
"""`created` of every model: OpenAI's clients want a number, and files have no birthday."""


@dataclass(slots=True)
class Models:
    """The catalogue as it stands now; replaced as a whole when the user's file changes."""

    directory: DataDir
    catalog: Catalog

    @classmethod
    def read(cls, directory: DataDir) -> "Models":
        """Read both files.

        Raises:
            InvalidCatalog: one of them is wrong.
        """
        return cls(directory, _read(directory))

    def reread(self) -> None:
        """Read both files again; on an error the old catalogue stays."""
        self.catalog = _read(self.directory)


def _read(directory: DataDir) -> Catalog:
    return load(shipped_path(), directory.catalog, directory.models)


class Admin:
    """The operator's verbs."""

    def __init__(
        self,
        writer: Writer,
        keys: Keyring,
        models: Models,
        *,
        clock: Clock,
        limits: Limits,
        presence: Presence | None = None,
    ) -> None:
        self._writer = writer
        self._keyring = keys
        self._models = models
        self._clock = clock
        self._limits = limits
        self._presence = presence or OnDisk(models.directory.models)
        self.version = program_version()
        self._adding = asyncio.Lock()

    # -- keys ---------------------------------------------------------------------------------

    async def mint(self, order: MintOrder) -> MintedKey:
        """Make a key and its account, and return the plaintext, once.

        Raises:
            InvalidRequest: a field of the order is wrong; `param` names it.
            ModelNotFound: the allow-list names no model.
        """
        self._keyring.require_room()
        now_us = self._clock.wall_us()
        text = credential.mint()
        key = self._new_key(order, text, now_us)
        unlimited = key.unlimited
        granted = Picocredits(0) if unlimited else checked_credit(order.credit, param="credit")
        await self._writer.run(books.mint(key, granted, now_us))
        self._keyring.add(key)
        limits = key.limits
        return MintedKey(
            id=key.id,
            name=key.name,
            key=text,
            credit=None if unlimited else credits_of(granted),
            daily_budget=decimal_credits(limits.daily_budget),
            rpm=limits.rpm,
            tpm=limits.tpm,
            concurrency=limits.concurrency,
            models=limits.models,
            created=iso(now_us) or "",
            expires=iso(key.expires_us),
        )

    def _new_key(self, order: MintOrder, text: str, now_us: int) -> Key:
        expiry_s = checked_expiry_s(order.expires)
        budget = order.daily_budget
        wanted = checked_models(order.models)
        return Key(
            id=ids.key_id(),
            name=checked_name(order.name, self._limits),
            digest=credential.digest(text),
            hint=credential.hint(text),
            unlimited=order.credit.strip().lower() == UNLIMITED,
            limits=KeyLimits(
                rpm=checked_rate(order.rpm, param="rpm"),
                tpm=checked_rate(order.tpm, param="tpm"),
                concurrency=checked_rate(order.concurrency, param="concurrency"),
                daily_budget=(
                    None if budget is None else checked_credit(budget, param="daily_budget")
                ),
                models=(
                    None
                    if wanted is None
                    else tuple(self._models.catalog.find(name).id for name in wanted)
                ),
            ),
            created_us=now_us,
            expires_us=None if expiry_s is None else now_us + expiry_s * 1_000_000,
            revoked_us=None,
        )

    async def keys(self) -> list[KeyView]:
        """Return every key, oldest first."""
        now_us = self._clock.wall_us()
        keys = list(self._keyring)
        read = books.balances([key.id for key in keys], now_us)
        balances = await self._writer.run(read, durable=False)
        return [_view(key, balance) for key, balance in zip(keys, balances, strict=True)]

    async def key(self, key_id: str) -> KeyView:
        """Return one key.

        Raises:
            KeyNotFound: no key has this id.
        """
        key = self._keyring.get(key_id)
        now_us = self._clock.wall_us()
        [balance] = await self._writer.run(books.balances([key_id], now_us), durable=False)
        return _view(key, balance)

    async def top_up(self, key_id: str, order: TopUpOrder) -> KeyView:
        """Add credits to a key.

        Raises:
            KeyNotFound: no key has this id.
            InvalidRequest: not an amount that the books can carry.
        """
        self._keyring.get(key_id)
        amount = checked_credit(order.credit, param="credit")
        now_us = self._clock.wall_us()
        await self._writer.run(books.top_up(key_id, amount, now_us))
        return await self.key(key_id)

    async def revoke(self, key_id: str) -> KeyView:
        """Refuse a key from now on, in memory first, then durably.

        Raises:
            KeyNotFound: no key has this id.
        """
        now_us = self._clock.wall_us()
        self._keyring.revoke(key_id, now_us)
        await self._writer.run(books.revoke(key_id, now_us))
        return await self.key(key_id)

    # -- models -------------------------------------------------------------------------------

    def models(self) -> ModelList:
        """Return every model with its prices."""
        return ModelList(object="list", data=[self._model(s) for s in self._models.catalog])

    def model(self, name: str) -> ModelView:
        """Return one model, by id or alias.

        Raises:
            ModelNotFound: no model has this name.
        """
        return self._model(self._models.catalog.find(name))

    async def add_model(self, order: AddModelOrder) -> ModelView:
        """Copy or convert a local model into the user's catalogue.

        Raises:
            InvalidModelFile: the file or folder is damaged or of a kind we do not serve.
            InvalidRequest: the id or the task is wrong.
        """
        directory = self._models.directory
        shelf = Shelf(directory.catalog, directory.models)
        async with self._adding:
            name = await asyncio.to_thread(
                shelf.add, Path(order.path), model_id=order.id, task=order.task, sha256=sha256_of
            )
            self._models.reread()
        return self.model(name)

    def _model(self, spec: ModelSpec) -> ModelView:
        entry = spec.entry
        reason = self._presence.reason(spec)
        return ModelView(
            id=spec.id,
            object="model",
            created=MODELS_BORN,
            owned_by=spec.id.partition("/")[0],
            task=spec.task,
            params=entry.params,
            pricing=PriceView(
                realtime=spec.tariff.realtime, batch=spec.tariff.batch, unit=spec.tariff.unit
            ),
            available=reason is None,
            loaded=self._presence.is_loaded(spec),
            max_input_tokens=entry.max_input_tokens,
            license=entry.license,
            description=entry.description,
            aliases=entry.aliases,
            quantization=entry.quantization,
            dimensions=entry.dimensions,
            matryoshka=entry.matryoshka or None,
            reason=reason,
            tuning=_tuning_view(self._presence.tuning(spec)),
        )


def program_version() -> str:
    """Return this program's version, `"0"` when it runs uninstalled."""
    try:
        return version("gigarouter")
    except PackageNotFoundError:
        return "0"


def _tuning_view(tuning: Tuning | None) -> TuningView | None:
    return msgspec.convert(tuning, TuningView, from_attributes=True) if tuning else None


def _view(key: Key, balance: Balance) -> KeyView:
    limits = key.limits
    return KeyView(
        id=key.id,
        name=key.name,
        hint=key.hint,
        credit=None if key.unlimited else decimal_credits(balance.available),
        spent_today=decimal_credits(balance.spent_today) or Decimal(0),
        daily_budget=decimal_credits(limits.daily_budget),
        rpm=limits.rpm,
        tpm=limits.tpm,
        concurrency=limits.concurrency,
        models=limits.models,
        created=iso(key.created_us) or "",
        expires=iso(key.expires_us),
        revoked=iso(key.revoked_us),
    )
