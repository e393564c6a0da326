"""Keyring: every key in memory, found by its digest, and its rows in the database.

Owns the tables `keys` and `credentials` and the only SQL that touches them.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from appliance.accounts import credential
from appliance.accounts.key import SCOPES, Key, KeyLimits, Retired
from appliance.core.errors import InvalidKey, InvalidRequest, KeyNotFound, MissingKey
from appliance.core.units import Picocredits
from appliance.store.database import execute_statements

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

CREDENTIALS = (
    "ALTER TABLE keys ADD COLUMN scopes TEXT NOT NULL DEFAULT 'infer usage'",
    "ALTER TABLE keys ADD COLUMN forgotten_us INTEGER",
    """
    CREATE TABLE credentials (
        digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
        key_id TEXT NOT NULL REFERENCES keys (id),
        ends_us INTEGER NOT NULL
    ) STRICT
    """,
)
"""Scopes, and the older credentials of rotated keys; the newest one is in `keys`."""

COLUMNS = (
    "id, name, digest, hint, unlimited, rpm, tpm, concurrency, daily_budget, models, "
    "created_us, expires_us, revoked_us, scopes, forgotten_us"
)
SELECT = f"SELECT {COLUMNS} FROM keys"  # noqa: S608 - a constant
INSERT = f"INSERT INTO keys ({COLUMNS}) VALUES ({', '.join('?' * 15)})"  # noqa: S608

FORGOTTEN = "forgotten"
"""The name of a key whose own name was removed."""


class Keyring:
    """All keys, live and revoked."""

    def __init__(self, keys: Iterable[Key], *, keys_max: int) -> None:
        self._by_id: dict[str, Key] = {}
        self._by_digest: dict[bytes, Key] = {}
        self._keys_max = keys_max
        self.on_revoked: Callable[[str], None] = lambda _: None
        """Called with the id of a key that was just revoked."""
        for key in keys:
            self.add(key)

    def __repr__(self) -> str:
        """Show how many keys there are."""
        return f"<Keyring [{len(self._by_id)} keys]>"

    def __iter__(self) -> Iterator[Key]:
        """Yield every key, oldest first."""
        return iter(sorted(self._by_id.values(), key=lambda key: (key.created_us, key.id)))

    def authenticate(self, text: str | None, now_us: int) -> Key:
        """Return the live key with this plaintext.

        Raises:
            MissingKey: there is no text.
            InvalidKey: mistyped, unknown, revoked, expired, or replaced by a newer credential.
        """
        if not text:
            raise MissingKey
        if not credential.is_well_formed(text):
            raise InvalidKey
        # The time of a lookup depends on the digest and says nothing of the plaintext.
        digest = credential.digest(text)
        key = self._by_digest.get(digest)
        if key is None or not key.accepts(digest, now_us):
            raise InvalidKey
        return key

    def require_live(self, key: Key, now_us: int) -> None:
        """Refuse a key that was revoked or has expired since its call was accepted.

        Raises:
            InvalidKey: it is not live any more.
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
        """Return whether any key is live."""
        return any(key.is_live(now_us) for key in self._by_id.values())

    def add(self, key: Key) -> None:
        """Add a key that is in the database, or replace the entry of its id."""
        known = self._by_id.get(key.id)
        for digest in known.digests() if known else ():
            del self._by_digest[digest]
        self._by_id[key.id] = key
        for digest in key.digests():
            self._by_digest[digest] = key

    def require_room(self) -> None:
        """Refuse another key when there are `keys_max`.

        Raises:
            InvalidRequest: there is no room for another one.
        """
        if len(self._by_id) >= self._keys_max:
            raise InvalidRequest(f"this store holds {self._keys_max} keys at most")

    def forget(self, key_id: str, now_us: int) -> Key:
        """Remove what identifies a key's holder; the caller has made it durable.

        Raises:
            KeyNotFound: no key has this id.
        """
        key = self.revoke(key_id, now_us)
        if key.forgotten_us is None:
            key = replace(key, name=FORGOTTEN, hint="", digest=b"", retired=(), forgotten_us=now_us)
            self.add(key)
        return key

    def revoke(self, key_id: str, now_us: int) -> Key:
        """Refuse a key from now on; the caller makes it durable.

        Raises:
            KeyNotFound: no key has this id.
        """
        key = self.get(key_id)
        if key.revoked_us is None:
            key = replace(key, revoked_us=now_us)
            self.add(key)
            self.on_revoked(key_id)
        return key


def add_credentials(connection: sqlite3.Connection) -> None:
    """Add scopes and older credentials to the first tables: a step of `MIGRATIONS`."""
    execute_statements(connection, CREDENTIALS)


def load(connection: sqlite3.Connection) -> list[Key]:
    """Return every key in the database."""
    retired: dict[str, list[Retired]] = {}
    rows = connection.execute("SELECT key_id, digest, ends_us FROM credentials ORDER BY rowid")
    for key_id, digest, ends_us in rows:
        retired.setdefault(key_id, []).append(Retired(digest, ends_us))
    return [
        replace(key, retired=tuple(retired.get(key.id, ())))
        for key in map(_from_row, connection.execute(SELECT))
    ]


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return why the keys cannot be read; an empty list if they can."""
    try:
        load(connection)
    except (ValueError, AssertionError) as error:
        return [f"a key cannot be read: {error}"]
    return []


def insert(connection: sqlite3.Connection, key: Key) -> None:
    """Write a new key."""
    connection.execute(
        INSERT,
        (
            key.id,
            key.name,
            key.digest,
            key.hint,
            int(key.unlimited),
            *_limits_row(key.limits),
            key.created_us,
            key.expires_us,
            key.revoked_us,
            " ".join(key.scopes),
            key.forgotten_us,
        ),
    )


def mark_revoked(connection: sqlite3.Connection, key_id: str, now_us: int) -> None:
    """Write that a key is revoked; a second time changes nothing."""
    connection.execute(
        "UPDATE keys SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL", (now_us, key_id)
    )


def write_credentials(connection: sqlite3.Connection, key: Key) -> None:
    """Write which credentials a key has."""
    connection.execute(
        "UPDATE keys SET digest = ?, hint = ? WHERE id = ?", (key.digest, key.hint, key.id)
    )
    connection.execute("DELETE FROM credentials WHERE key_id = ?", (key.id,))
    connection.executemany(
        "INSERT INTO credentials (key_id, digest, ends_us) VALUES (?, ?, ?)",
        [(key.id, old.digest, old.ends_us) for old in key.retired],
    )


def write_expiry(connection: sqlite3.Connection, key_id: str, expires_us: int | None) -> None:
    """Write when a key expires."""
    connection.execute("UPDATE keys SET expires_us = ? WHERE id = ?", (expires_us, key_id))


def write_limits(connection: sqlite3.Connection, key_id: str, limits: KeyLimits) -> None:
    """Write what a key may do."""
    connection.execute(
        "UPDATE keys SET rpm = ?, tpm = ?, concurrency = ?, daily_budget = ?, models = ?"
        " WHERE id = ?",
        (*_limits_row(limits), key_id),
    )


def forget(connection: sqlite3.Connection, key_id: str, now_us: int) -> None:
    """Revoke a key and remove what identifies its holder; a second time changes nothing."""
    mark_revoked(connection, key_id, now_us)
    connection.execute("DELETE FROM credentials WHERE key_id = ?", (key_id,))
    # No plaintext with this digest is known.
    connection.execute(
        "UPDATE keys SET name = ?, hint = '', digest = randomblob(32), forgotten_us = ?"
        " WHERE id = ? AND forgotten_us IS NULL",
        (FORGOTTEN, now_us, key_id),
    )


def _limits_row(limits: KeyLimits) -> tuple[int | str | None, ...]:
    models = None if limits.models is None else json.dumps(limits.models)
    return limits.rpm, limits.tpm, limits.concurrency, limits.daily_budget, models


def _from_row(row: Sequence[object]) -> Key:
    (
        key_id,
        name,
        digest,
        hint,
        unlimited,
        rpm,
        tpm,
        concurrency,
        daily_budget,
        models,
        created_us,
        expires_us,
        revoked_us,
        scopes,
        forgotten_us,
    ) = row
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
        scopes=tuple(scope for scope in SCOPES if scope in str(scopes).split()),
        forgotten_us=_optional_int(forgotten_us),
    )


def _optional_int(value: object) -> int | None:
    assert value is None or isinstance(value, int)
    return value
