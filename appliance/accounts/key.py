"""Key: who may call, and within which limits.

Owns the record of a key and the rules for the words an operator may use. Deliberately holds no
plaintext: that exists once, in the answer to `mint`.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.core.units import Picocredits, picocredits

RATE_MAX = 1_000_000_000
EXPIRY_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
EXPIRY_SECONDS_MAX = 100 * 365 * 86_400
UNLIMITED = "unlimited"


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
class Key:
    """One key as the server knows it."""

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

    def is_live(self, now_us: int) -> bool:
        """Say whether the key may be used at this moment."""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)

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


def checked_rate(value: int | None, *, param: str) -> int | None:
    """Return a positive rate or None.

    Raises:
        InvalidRequest: zero, negative or absurdly large.
    """
    if value is not None and not 1 <= value <= RATE_MAX:
        raise InvalidRequest(f"{param} must be between 1 and {RATE_MAX}", param=param)
    return value


def checked_expiry_s(text: str | None) -> int | None:
    """Return the seconds of `30d`, `12h`, `90m` or `2w`, or None.

    Raises:
        InvalidRequest: anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,6})([mhdw])", text)
    seconds = int(match[1]) * EXPIRY_UNITS[match[2]] if match else 0
    if not 0 < seconds <= EXPIRY_SECONDS_MAX:
        raise InvalidRequest(
            f"expires must look like 90m, 12h, 30d or 2w, not {text!r}", param="expires"
        )
    return seconds


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
