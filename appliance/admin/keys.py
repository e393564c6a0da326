"""Keys: what an operator does with keys, from mint to forget.

Owns the order of memory and store in each of these: a revocation is in memory first, everything
else durable first.
"""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

import msgspec

from appliance.accounts import credential, keyring
from appliance.accounts.key import (
    RETIRED_MAX,
    UNLIMITED,
    Key,
    KeyLimits,
    Retired,
    checked_credit,
    checked_expiry_s,
    checked_idempotency_key,
    checked_models,
    checked_name,
    checked_overlap_s,
    checked_rate,
    checked_scopes,
)
from appliance.accounts.keyring import Keyring
from appliance.admin.models import Models
from appliance.core import ids
from appliance.core.clock import Clock, iso
from appliance.core.errors import AlreadyMinted, InvalidRequest
from appliance.core.limits import Limits
from appliance.core.units import Picocredits, credits_of
from appliance.ledger import books, ledger, orders
from appliance.ledger.books import Books
from appliance.ledger.entry import Statement
from appliance.ledger.orders import Repeatable
from appliance.ledger.transfer import read_statement, read_statements
from appliance.store.reader import reading
from appliance.store.write_request import Operation
from appliance.wire.keys import (
    ExpireOrder,
    KeyList,
    KeyView,
    LimitOrder,
    MintedKey,
    MintOrder,
    RotatedKey,
    RotateOrder,
    TopUpOrder,
    decimal_credits,
)

T = TypeVar("T")

RATES = ("rpm", "tpm", "concurrency")


class KeyAdmin:
    """The operator's verbs for keys."""

    def __init__(
        self, books: Books, keys: Keyring, models: Models, *, clock: Clock, limits: Limits
    ) -> None:
        self._writer = books.writer
        self._balances = books.balances
        self._keyring = keys
        self._models = models
        self._clock = clock
        self._limits = limits
        self._changing = asyncio.Lock()
        """Held while a key is changed: each change starts from the result of the one before."""

    async def mint(self, order: MintOrder) -> MintedKey:
        """Make a key and its account, and return the plaintext, once.

        Raises:
            InvalidRequest: a field of the order is wrong; `param` names it.
            ModelNotFound: the allow-list names no model.
            AlreadyMinted: the order made a key before.
            IdempotencyKeyReused: another order had its Idempotency-Key.
        """
        now_us, repeatable = self._clock.wall_us(), _repeatable("mint", order)
        if repeatable is not None:
            # First of all: what the order names may be gone, or the last place taken by itself.
            done = await self._writer.run(lambda c: orders.find(c, repeatable, now_us))
            if done is not None:
                raise AlreadyMinted(done)
        self._keyring.require_room()
        text = credential.mint()
        key = self._new_key(order, text, now_us)
        unlimited = key.unlimited
        granted = Picocredits(0) if unlimited else checked_credit(order.credit, param="credit")
        done = await self._writer.run(books.mint(key, granted, now_us, repeatable))
        if done is not None:
            raise AlreadyMinted(done)
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
            scopes=key.scopes,
        )

    def has_live(self) -> bool:
        """Return whether there is a key that works."""
        return self._keyring.has_live(self._clock.wall_us())

    def _new_key(self, order: MintOrder, text: str, now_us: int) -> Key:
        expiry_s = checked_expiry_s(order.expires)
        return Key(
            id=ids.key_id(),
            name=checked_name(order.name, self._limits),
            digest=credential.digest(text),
            hint=credential.hint(text),
            unlimited=order.credit.strip().lower() == UNLIMITED,
            limits=self._limits_of(order),
            created_us=now_us,
            expires_us=None if expiry_s is None else now_us + expiry_s * 1_000_000,
            revoked_us=None,
            scopes=checked_scopes(order.scopes),
        )

    def _limits_of(self, order: MintOrder | LimitOrder) -> KeyLimits:
        """Return the limits of an order; one that is left out is none.

        Raises:
            InvalidRequest: one is wrong; `param` names it.
            ModelNotFound: the allow-list names no model.
        """
        rates = {name: checked_rate(_or_none(getattr(order, name)), param=name) for name in RATES}
        budget, models = _or_none(order.daily_budget), checked_models(_or_none(order.models))
        return KeyLimits(
            **rates,
            daily_budget=None if budget is None else checked_credit(budget, param="daily_budget"),
            models=None if models is None else tuple(self._models.find(m).id for m in models),
        )

    async def all(self) -> KeyList:
        """Return every key, oldest first."""
        # On another thread: there may be 100,000 keys.
        return KeyList(data=await asyncio.to_thread(self._list, self._clock.wall_us()))

    def _list(self, now_us: int) -> list[KeyView]:
        # The keys first: an account is committed before its key is in the keyring.
        keys, held = tuple(self._keyring), self._balances.held()
        with reading(self._writer.path) as connection:
            statements = read_statements(connection, now_us)
        return [_view(key, statements[key.id], held[key.id], now_us) for key in keys]

    async def show(self, key_id: str) -> KeyView:
        """Return one key.

        Raises:
            KeyNotFound: no key has this id.
        """
        key = self._keyring.get(key_id)
        return await asyncio.to_thread(self._show, key, self._clock.wall_us())

    def _show(self, key: Key, now_us: int) -> KeyView:
        held = self._balances.held()[key.id]
        with reading(self._writer.path) as connection:
            return _view(key, read_statement(connection, key.id, now_us), held, now_us)

    async def top_up(self, key_id: str, order: TopUpOrder) -> KeyView:
        """Add credits to a key.

        Raises:
            KeyNotFound: no key has this id.
            InvalidRequest: not an amount that the books can carry.
            IdempotencyKeyReused: another order had its Idempotency-Key.
        """
        self._keyring.get(key_id)
        amount = checked_credit(order.credit, param="credit")
        now_us = self._clock.wall_us()
        repeatable = _repeatable(f"top up {key_id}", order)
        await self._writer.run(books.top_up(key_id, amount, now_us, repeatable))
        return await self.show(key_id)

    async def revoke(self, key_id: str) -> KeyView:
        """Refuse a key from now on: in memory at once, then durably.

        Raises:
            KeyNotFound: no key has this id.
        """
        now_us = self._clock.wall_us()
        self._keyring.revoke(key_id, now_us)
        await self._writer.run(books.revoke(key_id, now_us))
        return await self.show(key_id)

    async def rotate(self, key_id: str, order: RotateOrder) -> RotatedKey:
        """Give a key a new credential and return its plaintext, once.

        Older credentials end with the overlap, or when they would have.

        Raises:
            KeyNotFound: no key has this id.
            InvalidRequest: the overlap is wrong, the key is not live, or too many older
                credentials of it still work.
        """
        overlap_s = checked_overlap_s(order.overlap)
        async with self._changing:
            now_us = self._clock.wall_us()
            key = self._keyring.get(key_id)
            if not key.is_live(now_us):
                raise InvalidRequest("this key is revoked or expired; mint another")
            ends_us = now_us + overlap_s * 1_000_000
            text = credential.mint()
            rotated = replace(
                key,
                digest=credential.digest(text),
                hint=credential.hint(text),
                retired=_retired(key, now_us, ends_us),
            )
            await self._writer.run(
                lambda connection: keyring.write_credentials(connection, rotated)
            )
            # It may have been revoked during the write, and stays revoked.
            key = self._keyring.get(key_id)
            rotated = replace(rotated, revoked_us=key.revoked_us)
            self._keyring.add(rotated)
        return RotatedKey(
            id=key_id,
            name=rotated.name,
            key=text,
            hint=rotated.hint,
            replaced_until=iso(ends_us) or "",
        )

    async def expire(self, key_id: str, order: ExpireOrder) -> KeyView:
        """Change when a key expires.

        Raises:
            KeyNotFound: no key has this id.
            InvalidRequest: neither a time from now nor `never`.
        """
        expiry_s = checked_expiry_s(order.expires)
        async with self._changing:
            self._keyring.get(key_id)
            now_us = self._clock.wall_us()
            expires_us = None if expiry_s is None else now_us + expiry_s * 1_000_000
            await self._writer.run(
                lambda connection: keyring.write_expiry(connection, key_id, expires_us)
            )
            self._keyring.add(replace(self._keyring.get(key_id), expires_us=expires_us))
        return await self.show(key_id)

    async def limit(self, key_id: str, order: LimitOrder) -> KeyView:
        """Change limits of a key: calls that begin from now on have them.

        Raises:
            KeyNotFound: no key has this id.
            InvalidRequest: the order names no limit, or one is wrong; `param` names it.
            ModelNotFound: the allow-list names no model.
        """
        given = [
            name for name in order.__struct_fields__ if getattr(order, name) is not msgspec.UNSET
        ]
        if not given:
            raise InvalidRequest(f"name one of {', '.join(order.__struct_fields__)}; null is none")
        wanted = self._limits_of(order)
        async with self._changing:
            changed = {name: getattr(wanted, name) for name in given}
            limits = replace(self._keyring.get(key_id).limits, **changed)
            await self._writer.run(
                lambda connection: keyring.write_limits(connection, key_id, limits)
            )
            # It may have been revoked during the write, and stays revoked.
            self._keyring.add(replace(self._keyring.get(key_id), limits=limits))
        return await self.show(key_id)

    async def forget(self, key_id: str) -> KeyView:
        """Revoke a key and remove what identifies its holder; its transfers stay.

        Raises:
            KeyNotFound: no key has this id.
        """
        now_us = self._clock.wall_us()
        self._keyring.revoke(key_id, now_us)
        async with self._changing:
            await self._writer.run(lambda connection: keyring.forget(connection, key_id, now_us))
            self._keyring.forget(key_id, now_us)
            # In parts, so that calls can be written between them; a call in flight may add a row.
            after: int | None = 0
            while after is not None:
                after = await self._writer.run(_forget_after(key_id, after))
        return await self.show(key_id)


def _or_none(value: T | msgspec.UnsetType) -> T | None:
    return None if isinstance(value, msgspec.UnsetType) else value


def _repeatable(verb: str, order: MintOrder | TopUpOrder) -> Repeatable | None:
    """Return how an order is known again, if it has an Idempotency-Key.

    Raises:
        InvalidRequest: that is empty, too long, or holds other than visible ASCII characters.
    """
    if order.idempotency_key is None:
        return None
    key = checked_idempotency_key(order.idempotency_key)
    content = msgspec.structs.replace(order, idempotency_key=None)
    return Repeatable.of(key, verb, msgspec.json.encode(content))


def _forget_after(key_id: str, after: int) -> Operation[int | None]:
    return lambda connection: ledger.forget(connection, key_id, after=after)


def _retired(key: Key, now_us: int, ends_us: int) -> tuple[Retired, ...]:
    """Return the older credentials of a key that is being rotated.

    Raises:
        InvalidRequest: more than `RETIRED_MAX` would still work.
    """
    older = [*key.retired_at(now_us), Retired(key.digest, ends_us)]
    retired = [replace(old, ends_us=min(old.ends_us, ends_us)) for old in older]
    working = tuple(old for old in retired if now_us < old.ends_us)
    if len(working) > RETIRED_MAX:
        raise InvalidRequest(
            f"{RETIRED_MAX} older secrets of this key work until {iso(working[0].ends_us)}; "
            "rotate it then, or with overlap 0 to end them",
            param="overlap",
        )
    return working


def _view(key: Key, statement: Statement, held: int, now_us: int) -> KeyView:
    limits, balance = key.limits, statement.balance
    return KeyView(
        id=key.id,
        name=key.name,
        hint=key.hint,
        credit=None if key.unlimited else decimal_credits(balance.available - held),
        spent_today=decimal_credits(balance.spent_today) or Decimal(0),
        daily_budget=decimal_credits(limits.daily_budget),
        rpm=limits.rpm,
        tpm=limits.tpm,
        concurrency=limits.concurrency,
        models=limits.models,
        created=iso(key.created_us) or "",
        expires=iso(key.expires_us),
        revoked=iso(key.revoked_us),
        last_used=iso(statement.charged_us),
        scopes=key.scopes,
        retiring=tuple(iso(old.ends_us) or "" for old in key.retired_at(now_us)),
        forgotten=iso(key.forgotten_us),
    )
