"""Ids: random names of requests, keys and downloads, which cannot be guessed.

Owns the alphabets.
"""

import secrets
import string

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEY_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no letter is mistaken for another when read aloud."""


def request_id() -> str:
    """Return a new request id: `req_` and 96 random bits in hexadecimal."""
    return f"req_{secrets.token_hex(12)}"


def key_id() -> str:
    """Return a new key id: `key_` and 50 random bits."""
    return "key_" + "".join(secrets.choice(KEY_ID_ALPHABET) for _ in range(10))


def download_id() -> str:
    """Return a new download id: `dl_` and 40 random bits."""
    return "dl_" + "".join(secrets.choice(KEY_ID_ALPHABET) for _ in range(8))


def file_id() -> str:
    """Return a new id of an uploaded file or of a batch's results: `file-` and 142 random bits."""
    return "file-" + "".join(secrets.choice(BASE62) for _ in range(24))


def batch_id() -> str:
    """Return a new batch id: `batch_` and 142 random bits."""
    return "batch_" + "".join(secrets.choice(BASE62) for _ in range(24))


def addition_id() -> str:
    """Return a new id of a model that is being added: `add_` and 40 random bits."""
    return "add_" + "".join(secrets.choice(KEY_ID_ALPHABET) for _ in range(8))
