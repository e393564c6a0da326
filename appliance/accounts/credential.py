"""Credential: the text of a key, made once and known afterwards only by its digest.

Owns the format `gr-` + 32 base62 characters + 6 base62 characters of CRC32, so that scanners can
recognise a leaked key and we can refuse a mistyped one without touching the store.
"""

import hashlib
import re
import secrets
import zlib

from appliance.core.ids import BASE62

PREFIX = "gr-"
SECRET_CHARS = 32
CHECK_CHARS = 6
PATTERN = re.compile(r"gr-[0-9A-Za-z]{38}", re.ASCII)
"""What a leaked key looks like; its last six characters are the checksum of the rest."""


def mint() -> str:
    """Return a new key with 190 random bits."""
    secret = PREFIX + "".join(secrets.choice(BASE62) for _ in range(SECRET_CHARS))
    return secret + _checksum(secret)


def is_well_formed(text: str) -> bool:
    """Say whether the text has the form and the checksum of a key."""
    if PATTERN.fullmatch(text) is None:
        return False
    return _checksum(text[:-CHECK_CHARS]) == text[-CHECK_CHARS:]


def digest(text: str) -> bytes:
    """Return the SHA-256 under which a key is stored and looked up.

    A slow hash would add nothing: 190 random bits cannot be guessed.
    """
    return hashlib.sha256(text.encode("ascii", "replace")).digest()


def hint(text: str) -> str:
    """Return what may be shown of a key: `gr-AbCd…wxyz`."""
    return f"{text[:7]}…{text[-4:]}"


def _checksum(secret: str) -> str:
    value = zlib.crc32(secret.encode("ascii"))
    digits = ""
    for _ in range(CHECK_CHARS):
        value, digit = divmod(value, len(BASE62))
        digits = BASE62[digit] + digits
    return digits
