"""Keys: what an operator does with keys: mint, show, top up and revoke.

Owns the order of memory and store in each of these. Deliberately knows no HTTP.
"""

from decimal import Decimal

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
from appliance.admin.models import Models
from appliance.core import ids
from appliance.core.clock import Clock, iso
from appliance.core.limits import Limits
from appliance.core.units import Picocredits, credits_of
from appliance.ledger import books
from appliance.ledger.entry import Balance
from appliance.store.writer import Writer
from appliance.wire.keys import (
    KeyList,
    KeyView,
    MintedKey,
    MintOrder,
    TopUpOrder,
    decimal_credits,
)


class KeyAdmin:
    """The operator's verbs for keys."""

    def __init__(
        self, writer: Writer, keys: Keyring, models: Models, *, clock: Clock, limits: Limits
    ) -> None:
        self._writer = writer
        self._keyring = keys
        self._models = models
        self._clock = clock
        self._limits = limits

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

    async def all(self) -> KeyList:
        """Return every key, oldest first."""
        now_us = self._clock.wall_us()
        keys = list(self._keyring)
        read = books.balances([key.id for key in keys], now_us)
        balances = await self._writer.run(read, durable=False)
        views = [_view(key, balance) for key, balance in zip(keys, balances, strict=True)]
        return KeyList(data=views)

    async def show(self, key_id: str) -> KeyView:
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
        return await self.show(key_id)

    async def revoke(self, key_id: str) -> KeyView:
        """Refuse a key from now on, in memory first, then durably.

        Raises:
            KeyNotFound: no key has this id.
        """
        now_us = self._clock.wall_us()
        self._keyring.revoke(key_id, now_us)
        await self._writer.run(books.revoke(key_id, now_us))
        return await self.show(key_id)


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
