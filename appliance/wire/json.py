"""JSON: bytes from a client to a typed body, with a message of its own for each kind of error.

Owns the decoding that never lets a foreign exception escape.
"""

import re
from typing import Any, TypeVar

import msgspec

from appliance.core.errors import InvalidRequest

T = TypeVar("T")

ENCODER = msgspec.json.Encoder(decimal_format="number")
"""Decimals leave as exact numbers."""

_AT = re.compile(r" - at `\$\.?([^`]*)`$")


def decode(body: bytes | msgspec.Raw, kind: type[T], *, param: str | None = None) -> T:
    """Return the body as `kind`.

    Raises:
        InvalidRequest: not UTF-8, not JSON, too deep, or of the wrong shape; `param` names the
            field, or is the given one when the body is a part of a larger document.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        match = _AT.search(text)
        field = match[1] if match else ""
        where = (param or "") + field if field.startswith("[") else field or (param or "")
        reason = _AT.sub("", text)
        prefix = f"{where}: " if where else ""
        raise InvalidRequest(f"{prefix}{reason}", param=_top(where)) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", param=param) from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.", param=param) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", param=param) from None


def _top(where: str) -> str | None:
    return re.split(r"[.\[]", where, maxsplit=1)[0] or None


def encode(value: Any) -> bytes:
    """Return a value as JSON; decimals as exact numbers."""
    return ENCODER.encode(value)
