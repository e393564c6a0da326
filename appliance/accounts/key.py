"""Key: a caller's identity, limits and scopes.

Owns the record of a key and the rules for the words an operator may use. It holds no plaintext:
that exists once, in the answer to `mint`.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.core.time_span import seconds_of
from appliance.core.units import Picocredits, picocredits

RATE_MAX = 1_000_000_000
EXPIRY_SECONDS_MAX = 100 * 365 * 86_400
NEVER = "never"
OVERLAP_SECONDS_MAX = 30 * 86_400
"""How long an older credential may work after its key was rotated."""
RETIRED_MAX = 2
"""Older credentials of one key that work at one time."""
UNLIMITED = "unlimited"

Scope = Literal["infer", "usage", "admin"]
"""Call models; read the key's own balance and usage; be the operator."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("infer", "usage")

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do; None everywhere means: as much as it can pay for."""

    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute."""
    concurrency: int | None = None
    """Calls at one time."""
    daily_budget: Picocredits | None = None
    """Picocredits a UTC day."""
    models: tuple[str, ...] | None = None
    """Ids of the models that it may call."""


@dataclass(frozen=True, slots=True)
class Retired:
    """An older credential of a rotated key, and until when it works."""

    digest: bytes
    ends_us: int


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    id: str
    name: str
    digest: bytes
    hint: str
    unlimited: bool
    """True: metered, never refused for lack of credit."""
    limits: KeyLimits
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    """In the order of `SCOPES`."""
    retired: tuple[Retired, ...] = ()
    """Oldest first; some may have ended."""
    forgotten_us: int | None = None
    """When its name and credentials were removed; its transfers stay."""

    def is_live(self, now_us: int) -> bool:
        """Say whether the key may be used at this moment."""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)

    def accepts(self, digest: bytes, now_us: int) -> bool:
        """Say whether a credential of this key, by its digest, opens it at this moment."""
        return self.is_live(now_us) and (
            digest == self.digest
            or any(digest == old.digest and now_us < old.ends_us for old in self.retired)
        )

    def digests(self) -> tuple[bytes, ...]:
        """Return the digests of all its credentials; a forgotten key has none."""
        if self.forgotten_us is not None:
            return ()
        return (self.digest, *(old.digest for old in self.retired))

    def retired_at(self, now_us: int) -> tuple[Retired, ...]:
        """Return the older credentials that still work."""
        return tuple(old for old in self.retired if now_us < old.ends_us)

    def may_call(self, model_id: str) -> bool:
        """Say whether this key's allow-list has the model."""
        return self.limits.models is None or model_id in self.limits.models


def checked_name(text: str, limits: Limits) -> str:
    """Return the name if every character can be shown, else refuse it.

    Raises:
        InvalidRequest: empty, too long, or with control or formatting characters.
    """
    name = text.strip()
    if not name or len(name) > limits.name_chars_max:
        raise InvalidRequest(
            f"name must have 1 to {limits.name_chars_max} characters", param="name"
        )
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in name):
        raise InvalidRequest("name must not have control characters", param="name")
    return name


def checked_credit(text: str, *, param: str) -> Picocredits:
    """Return decimal credits as picocredits.

    Raises:
        InvalidRequest: not an amount that the books can carry.
    """
    try:
        return picocredits(text)
    except ValueError as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from None


def checked_idempotency_key(text: str) -> str:
    """Return an Idempotency-Key as it is.

    Raises:
        InvalidRequest: empty, too long, or with other than visible ASCII characters.
    """
    if not _IDEMPOTENCY_KEY.fullmatch(text):
        raise InvalidRequest(
            "Idempotency-Key has 1 to 255 visible ASCII characters", param="Idempotency-Key"
        )
    return text


def checked_rate(value: int | None, *, param: str) -> int | None:
    """Return a positive rate or None.

    Raises:
        InvalidRequest: zero, negative or absurdly large.
    """
    if value is not None and not 1 <= value <= RATE_MAX:
        raise InvalidRequest(f"{param} must be between 1 and {RATE_MAX}", param=param)
    return value


def checked_expiry_s(text: str | None) -> int | None:
    """Return the seconds of `30d`, `12h`, `90m` or `2w`; None for None and `never`.

    Raises:
        InvalidRequest: anything else.
    """
    if text is None or text == NEVER:
        return None
    seconds = seconds_of(text)
    if not 0 < seconds <= EXPIRY_SECONDS_MAX:
        raise InvalidRequest(
            f"expires must look like 90m, 12h, 30d or 2w, or be 'never', not {text[:50]!r}",
            param="expires",
        )
    return seconds


def checked_overlap_s(text: str) -> int:
    """Return the seconds of `24h` or the like; 0 for `0`.

    Raises:
        InvalidRequest: anything else, or longer than `OVERLAP_SECONDS_MAX`.
    """
    seconds = seconds_of(text)
    if text != "0" and not 0 < seconds <= OVERLAP_SECONDS_MAX:
        raise InvalidRequest(
            f"overlap must be 0, or look like 90m, 24h or 7d and be at most 30d, not {text[:50]!r}",
            param="overlap",
        )
    return seconds


def checked_scopes(scopes: Sequence[str] | None) -> tuple[Scope, ...]:
    """Return the scopes in the order of `SCOPES`; the default for None.

    Raises:
        InvalidRequest: none, an unknown one, or `admin` beside `infer`.
    """
    if scopes is None:
        return DEFAULT_SCOPES
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise InvalidRequest(f"scopes must be some of {', '.join(SCOPES)}", param="scopes")
    if "admin" in scopes and "infer" in scopes:
        raise InvalidRequest(
            "scopes: a key for 'admin' cannot have 'infer'; mint one for each", param="scopes"
        )
    return tuple(scope for scope in SCOPES if scope in scopes)


def checked_models(models: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the allow-list, or None for every model.

    Raises:
        InvalidRequest: an empty list, which would be a key for nothing.
    """
    if models is None:
        return None
    if not models:
        raise InvalidRequest("models must name at least one model", param="models")
    return tuple(models)
