"""Keyring: every key in memory, looked up by digest, and its rows in the store.

Owns the table `keys` and the only SQL that touches it. Deliberately moves no credits.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from appliance.accounts import credential
from appliance.accounts.key import Key, KeyLimits
from appliance.core.errors import InvalidKey, InvalidRequest, KeyNotFound, MissingKey
from appliance.core.units import Picocredits

TABLES = (
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL CHECK (length(name) > 0),
        digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
        hint TEXT NOT NULL,
        unlimited INTEGER NOT NULL CHECK (unlimited IN (0, 1)),
        rpm INTEGER CHECK (rpm > 0),
        tpm INTEGER CHECK (tpm > 0),
        concurrency INTEGER CHECK (concurrency > 0),
        daily_budget INTEGER CHECK (daily_budget >= 0),
        models TEXT,
        created_us INTEGER NOT NULL,
        expires_us INTEGER,
        revoked_us INTEGER
    ) STRICT
    """,
)

COLUMNS = (
    "id, name, digest, hint, unlimited, rpm, tpm, concurrency, daily_budget, models, "
    "created_us, expires_us, revoked_us"
)
SELECT = f"SELECT {COLUMNS} FROM keys"  # noqa: S608 - a constant
INSERT = f"INSERT INTO keys ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


class Keyring:
    """All keys, live and revoked."""

    def __init__(self, keys: Iterable[Key], *, keys_max: int) -> None:
        self._by_id = {key.id: key for key in keys}
        self._by_digest = {key.digest: key for key in self._by_id.values()}
        self._keys_max = keys_max

    def __repr__(self) -> str:
        """Count what is held."""
        return f"<Keyring [{len(self._by_id)} keys]>"

    def __iter__(self) -> Iterator[Key]:
        """Yield every key, oldest first."""
        return iter(sorted(self._by_id.values(), key=lambda key: (key.created_us, key.id)))

    def authenticate(self, text: str | None, now_us: int) -> Key:
        """Return the live key with this plaintext.

        Raises:
            MissingKey: there is no text.
            InvalidKey: mistyped, unknown, revoked or expired.
        """
        if not text:
            raise MissingKey
        if not credential.is_well_formed(text):
            raise InvalidKey
        # Looking up a digest leaks no timing about the key itself.
        key = self._by_digest.get(credential.digest(text))
        if key is None or not key.is_live(now_us):
            raise InvalidKey
        return key

    def require_live(self, key: Key, now_us: int) -> None:
        """Refuse a key that was revoked or has expired since it was let in.

        Raises:
            InvalidKey: as said.
        """
        if not self.get(key.id).is_live(now_us):
            raise InvalidKey

    def get(self, key_id: str) -> Key:
        """Return the key with this id.

        Raises:
            KeyNotFound: no key has it.
        """
        try:
            return self._by_id[key_id]
        except KeyError:
            raise KeyNotFound(key_id) from None

    def has_live(self, now_us: int) -> bool:
        """Say whether anyone could call."""
        return any(key.is_live(now_us) for key in self._by_id.values())

    def add(self, key: Key) -> None:
        """Hold a key that the store already has."""
        self._by_id[key.id] = key
        self._by_digest[key.digest] = key

    def require_room(self) -> None:
        """Refuse another key when the ring is full.

        Raises:
            InvalidRequest: `keys_max` keys exist.
        """
        if len(self._by_id) >= self._keys_max:
            raise InvalidRequest(f"this store holds {self._keys_max} keys at most")

    def revoke(self, key_id: str, now_us: int) -> Key:
        """Refuse the key from now on; the caller makes it durable.

        Raises:
            KeyNotFound: no key has this id.
        """
        key = self.get(key_id)
        if key.revoked_us is None:
            key = replace(key, revoked_us=now_us)
            self.add(key)
        return key


def load(connection: sqlite3.Connection) -> list[Key]:
    """Return every key in the store."""
    return [_from_row(row) for row in connection.execute(SELECT)]


def insert(connection: sqlite3.Connection, key: Key) -> None:
    """Write a new key."""
    limits = key.limits
    models = None if limits.models is None else json.dumps(limits.models)
    connection.execute(
        INSERT,
        (
            key.id, key.name, key.digest, key.hint, int(key.unlimited), limits.rpm, limits.tpm,
            limits.concurrency, limits.daily_budget, models, key.created_us, key.expires_us,
            key.revoked_us,
        ),
    )  # fmt: skip


def mark_revoked(connection: sqlite3.Connection, key_id: str, now_us: int) -> None:
    """Write that a key is revoked; the first time counts."""
    connection.execute(
        "UPDATE keys SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL", (now_us, key_id)
    )


def _from_row(row: Sequence[object]) -> Key:
    (key_id, name, digest, hint, unlimited, rpm, tpm, concurrency, daily_budget, models,
     created_us, expires_us, revoked_us) = row  # fmt: skip
    assert isinstance(key_id, str)
    assert isinstance(name, str)
    assert isinstance(digest, bytes)
    assert isinstance(hint, str)
    assert isinstance(created_us, int)
    return Key(
        id=key_id,
        name=name,
        digest=digest,
        hint=hint,
        unlimited=bool(unlimited),
        limits=KeyLimits(
            rpm=_optional_int(rpm),
            tpm=_optional_int(tpm),
            concurrency=_optional_int(concurrency),
            daily_budget=None if daily_budget is None else Picocredits(int(str(daily_budget))),
            models=None if models is None else tuple(json.loads(str(models))),
        ),
        created_us=created_us,
        expires_us=_optional_int(expires_us),
        revoked_us=_optional_int(revoked_us),
    )


def _optional_int(value: object) -> int | None:
    assert value is None or isinstance(value, int)
    return value
