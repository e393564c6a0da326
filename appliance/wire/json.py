"""JSON: from a client's bytes to a typed body, with a message for each way of being wrong.

Owns the decoding, out of which no exception of a library escapes.
"""

import re
from functools import cache
from typing import Any, TypeVar

import msgspec

from appliance.core.errors import InvalidRequest

T = TypeVar("T")
Body = TypeVar("Body", bound=msgspec.Struct)

ENCODER = msgspec.json.Encoder(decimal_format="number")
"""Decimals leave as exact numbers."""

_TRUNCATED = "Input data was truncated"
_UNPAIRED = re.compile(
    rb"(?<!\\)(?:\\\\)*+"  # the backslash below is not itself escaped; possessive: no memory
    rb"(\\u[dD](?:"
    rb"[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"))"
)
"""A high surrogate without a low one behind it, or a low one without a high one before it."""
_AT = re.compile(r" - at `\$\.?([^`]*)`$")


def decode_leniently(body: bytes | msgspec.Raw, kind: type[Body]) -> Body:
    """Return the body as `kind`; "1", 1.0 and "true" are taken for 1 and true.

    Raises:
        InvalidRequest: as `decode` says.
    """
    found = decode(body, kind, strict=False)
    _refuse_text_null(body, found)
    return found


def _refuse_text_null(body: bytes | msgspec.Raw, found: msgspec.Struct) -> None:
    """Refuse fields that a lenient decoder takes for null though a text was sent: "null"."""
    missing = [name for name in found.__struct_fields__ if getattr(found, name) is None]
    if not missing:
        return
    sent = msgspec.json.decode(body, type=_as_sent(type(found)))
    for name in missing:
        raw = bytes(getattr(sent, name))
        if raw.lstrip().startswith(b'"'):
            raise InvalidRequest(
                f'{name}: "null" is a text; leave it out, or write null without quotes', param=name
            )


@cache
def _as_sent(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a type of a body's fields that are not looked into."""
    fields = [(name, msgspec.Raw, msgspec.Raw()) for name in kind.__struct_fields__]
    return msgspec.defstruct(f"{kind.__name__}AsSent", fields)


SMALL_BYTES_MAX = 4_096
"""Of a part of a body that is a few words."""


def is_given(raw: msgspec.Raw) -> bool:
    """Say whether a part of a body was sent, and is not null."""
    return bytes(raw).strip() not in {b"", b"null"}


def decode_small(raw: msgspec.Raw, kind: type[T], *, param: str) -> T:
    """Return a small part of a body as `kind`; a list becomes objects only after its size is known.

    Raises:
        InvalidRequest: it is too large, or as `decode` says.
    """
    if len(bytes(raw)) > SMALL_BYTES_MAX:
        raise InvalidRequest(f"{param} is too long", param=param)
    return decode(raw, kind, param=param)


def decode(
    body: bytes | msgspec.Raw, kind: type[T], *, param: str | None = None, strict: bool = True
) -> T:
    """Return the body as `kind`.

    Raises:
        InvalidRequest: not UTF-8, not JSON, too deep, or of the wrong shape; `param` names the
            field, or is the given one when the body is a part of a larger document.
    """
    try:
        return msgspec.json.decode(body, type=kind, strict=strict)
    except msgspec.ValidationError as error:
        text = str(error)
        match = _AT.search(text)
        field = match[1] if match else ""
        where = (param or "") + field if field.startswith("[") else field or (param or "")
        reason = _AT.sub("", text)
        prefix = f"{where}: " if where else ""
        raise InvalidRequest(f"{prefix}{reason}", param=_top(where)) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(_why_not_json(bytes(body), str(error)), param=param) from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.", param=param) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", param=param) from None


def _why_not_json(body: bytes, reason: str) -> str:
    """Return why a body is not JSON, where the decoder's own reason would mislead.

    The decoder says that input was truncated for all of these.
    """
    if not body.strip():
        return "The body is empty; send a JSON object."
    surrogate = _UNPAIRED.search(body)
    if surrogate is not None:
        return (
            f"The body is not valid JSON: {surrogate[1].decode('ascii')} is half of a surrogate "
            "pair and no character; write both halves, or the character itself."
        )
    if reason == _TRUNCATED:
        return "The body is not valid JSON: it ends before the document does."
    return f"The body is not valid JSON: {reason}"


def _top(where: str) -> str | None:
    return re.split(r"[.\[]", where, maxsplit=1)[0] or None


def encode(value: Any) -> bytes:
    """Return a value as JSON; decimals as exact numbers."""
    return ENCODER.encode(value)
