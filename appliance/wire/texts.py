"""Texts: `input` and `documents`, checked before they become Python objects.

Owns the rules for their number, their size and their kinds.
"""

from typing import Any

import msgspec

from appliance.core.errors import InvalidRequest, TokenInputUnsupported
from appliance.core.limits import Limits
from appliance.wire.json import decode

OBJECT_STRINGS_MAX = 200
"""Strings of a document that is an object, names and values, on the average."""
_NUMBER_OR_LIST = (b"[", b"-", *(b"%d" % digit for digit in range(10)))


def holds_token_ids(raw: msgspec.Raw) -> bool:
    """Say whether an input is a list of numbers, or of lists."""
    body = bytes(raw).lstrip()
    return body.startswith(b"[") and body[1:65].lstrip()[:1] in _NUMBER_OR_LIST


def embedding_inputs(raw: msgspec.Raw, limits: Limits, *, param: str) -> list[str]:
    """Return the texts to embed, where token ids are of no use.

    Raises:
        TokenInputUnsupported: token ids.
        InvalidRequest: as for `texts_of`.
    """
    if holds_token_ids(raw):
        raise TokenInputUnsupported(param=param)
    return texts_of(raw, limits, param=param)


def texts_of(raw: msgspec.Raw, limits: Limits, *, param: str) -> list[str]:
    """Return the texts of a string, or of a list of strings or objects with a `text`.

    Raises:
        InvalidRequest: empty, too many, too large, or of another kind; `param` names the field.
    """
    body = bytes(raw).lstrip()
    if body.startswith(b'"'):
        texts = [decode(body, str, param=param)]
    elif body.startswith(b"["):
        texts = _texts_of_list(body, limits, param=param, fields=["text"])
    else:
        what = "must be" if body else "is missing; it is"
        raise InvalidRequest(f"{param} {what} a string or a list of strings", param=param)
    require_texts(texts, limits, param=param)
    return texts


def require_texts(texts: list[str], limits: Limits, *, param: str) -> None:
    """Refuse texts of which one is empty or oversized, none at all, and too many of them.

    Raises:
        InvalidRequest: as said.
    """
    _require_bounds(texts, limits, param=param)
    for index, text in enumerate(texts):
        if not text:
            raise InvalidRequest(f"{param}[{index}] is empty", param=param)


def rerank_documents(
    raw: msgspec.Raw, limits: Limits, *, param: str, fields: list[str] | None
) -> list[str]:
    """Return the texts to score: of strings, or of objects with a `text` or the given `fields`.

    Raises:
        InvalidRequest: empty, too many, too large, or of another kind.
    """
    body = bytes(raw).lstrip()
    if not body.startswith(b"["):
        raise InvalidRequest(f"{param} must be a list of strings", param=param)
    texts = _texts_of_list(body, limits, param=param, fields=fields or ["text"])
    _require_bounds(texts, limits, param=param)
    return texts


def require_text(text: str, limits: Limits, *, param: str) -> None:
    """Refuse an empty or oversized single text.

    Raises:
        InvalidRequest: as said.
    """
    if not text:
        raise InvalidRequest(f"{param} is empty", param=param)
    _require_bounds([text], limits, param=param)


def require_count(body: bytes, limits: Limits, *, param: str, each: int = 1) -> None:
    """Refuse millions of strings before any of them becomes an object.

    A string has two quotes without a backslash before them, so this never counts more strings
    than there are. `each` is how many of them an item may have.

    Raises:
        InvalidRequest: as said.
    """
    strings = (body.count(b'"') - body.count(b'\\"')) // 2
    if strings > limits.inputs_max * each:
        raise InvalidRequest(
            f"{param} has more than {limits.inputs_max} items; split it", param=param
        )


def _require_bounds(texts: list[str], limits: Limits, *, param: str) -> None:
    if not texts:
        raise InvalidRequest(f"{param} is empty", param=param)
    if len(texts) > limits.inputs_max:
        raise InvalidRequest(
            f"{param} has {len(texts)} items; {limits.inputs_max} at most", param=param
        )
    for index, text in enumerate(texts):
        # A character has at most 4 bytes: most texts need not be encoded to be measured.
        if len(text) * 4 > limits.text_bytes_max and len(text.encode()) > limits.text_bytes_max:
            raise InvalidRequest(
                f"{param}[{index}] is larger than {limits.text_bytes_max} bytes", param=param
            )


def _texts_of_list(body: bytes, limits: Limits, *, param: str, fields: list[str]) -> list[str]:
    has_objects = b"{" in body
    require_count(body, limits, param=param, each=OBJECT_STRINGS_MAX if has_objects else 1)
    if has_objects:
        return _texts_of_objects(body, limits, param=param, fields=fields)
    return decode(body, list[str], param=param)


def _texts_of_objects(body: bytes, limits: Limits, *, param: str, fields: list[str]) -> list[str]:
    """Return the joined fields of objects, and strings as they are.

    The decoded type has these fields alone, so that all other fields are skipped without becoming
    Python objects, and decoding ends at the first object too many.
    """
    decoded = 0

    def count(_: object) -> None:
        nonlocal decoded
        decoded += 1
        if decoded > limits.inputs_max:
            raise ValueError(f"more than {limits.inputs_max} items; split it")

    if any(not field.isprintable() or '"' in field or "\\" in field for field in fields):
        raise InvalidRequest(
            "rank_fields: a name is plain text without quotes", param="rank_fields"
        )
    names = {f"field_{number}": field for number, field in enumerate(dict.fromkeys(fields))}
    kind: Any = msgspec.defstruct(
        "Document",
        [(name, str | msgspec.UnsetType, msgspec.UNSET) for name in names],
        rename=names,
        namespace={"__post_init__": count},
        gc=False,
    )
    documents = decode(body, list[str | kind], param=param)
    texts = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            texts.append(document)
            continue
        parts = [part for name in names if (part := getattr(document, name)) is not msgspec.UNSET]
        if not parts:
            wanted = " or ".join(map(repr, names.values()))
            raise InvalidRequest(f"{param}[{index}] has no string {wanted}", param=param)
        texts.append("\n".join(parts))
    return texts
