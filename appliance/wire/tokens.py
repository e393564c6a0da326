"""Tokens: what is asked about tokens and segments, free of charge.

Owns the union of the fields that clients of this server, Cohere, Jina, llama.cpp's server, vLLM and
TEI send. Unknown fields are ignored, nulls mean "not given".
"""

from typing import Annotated, Any, Literal

import msgspec

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.wire.json import decode
from appliance.wire.questions import ModelName
from appliance.wire.texts import require_text, texts_of

SEGMENT_TOKENS_MIN = 16
"""Of a segment: one letter each would be more JSON than text."""
SegmentTokens = Annotated[int, msgspec.Meta(ge=SEGMENT_TOKENS_MIN, le=1_000_000)]
SegmentChars = Annotated[int, msgspec.Meta(ge=SEGMENT_TOKENS_MIN, le=1_000_000)]
Overlap = Annotated[int, msgspec.Meta(ge=0, le=500_000)]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
By = Literal["tokens", "sentences", "markdown"]

_TEXT_FIELDS = ("input", "text", "content", "inputs", "prompt")
_TOKEN_FIELDS = ("tokens", "ids")


class TokenizeBody(msgspec.Struct):
    """`POST /v1/tokenize` as sent."""

    model: ModelName | None = None
    input: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    """Cohere's."""
    content: msgspec.Raw = msgspec.Raw()
    """llama.cpp's server's."""
    inputs: msgspec.Raw = msgspec.Raw()
    """TEI's."""
    prompt: msgspec.Raw = msgspec.Raw()
    """vLLM's."""
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    return_tokens: bool | None = None
    with_pieces: bool | None = None


class DetokenizeBody(msgspec.Struct):
    """`POST /v1/detokenize` as sent."""

    model: ModelName | None = None
    tokens: msgspec.Raw = msgspec.Raw()
    ids: msgspec.Raw = msgspec.Raw()
    """TEI's."""
    skip_special_tokens: bool | None = None


class SegmentBody(msgspec.Struct):
    """`POST /v1/segment` as sent."""

    model: ModelName | None = None
    text: str | None = None
    input: str | None = None
    content: str | None = None
    """Jina's."""
    by: By | None = None
    tokens_max: SegmentTokens | None = None
    overlap: Overlap | None = None
    return_text: bool | None = None
    return_chunks: bool | None = None
    """Jina's: the texts, their places and their number stand at the top of the answer, too."""
    max_chunk_length: SegmentChars | None = None
    """Jina's: characters of a segment."""


class TokenizeRequest(msgspec.Struct, frozen=True):
    """A checked request for the tokens of texts."""

    model: str | None
    """None: the body names none."""
    texts: list[str]
    is_single: bool
    """True: one text was sent, not a list of one."""
    with_specials: bool
    """True: the tokens with which a model is fed."""
    return_pieces: bool
    pairs_first: bool
    """True: `tokens` of a single text are objects with id and piece, as llama.cpp's server's."""
    is_tei: bool
    """True: the answer is TEI's."""


class DetokenizeRequest(msgspec.Struct, frozen=True):
    """A checked request for the text of tokens."""

    model: str | None
    tokens: list[list[int]]
    is_single: bool
    param: str
    """The field of the body that holds them."""
    with_specials: bool
    """True: special tokens are written by their names, not left out."""
    is_tei: bool


class SegmentRequest(msgspec.Struct, frozen=True):
    """A checked request for the segments of a text."""

    model: str | None
    """None: the body names none."""
    text: str
    by: By
    tokens_max: int | None
    """None: as many as the model takes."""
    overlap: int
    chars_max: int | None
    return_text: bool
    is_jina: bool
    """True: the answer has what Jina's clients read besides."""


def tokenize_request(body: bytes, limits: Limits) -> TokenizeRequest:
    """Return the checked request.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode(body, TokenizeBody)
    param, raw = _given(sent, _TEXT_FIELDS)
    specials = [flag for flag in (sent.add_special_tokens, sent.add_special) if flag is not None]
    return TokenizeRequest(
        model=sent.model,
        texts=texts_of(raw, limits, param=param),
        is_single=bytes(raw).lstrip().startswith(b'"'),
        with_specials=specials[0] if specials else True,
        return_pieces=bool(sent.return_tokens or sent.with_pieces),
        pairs_first=bool(sent.with_pieces),
        is_tei=param == "inputs" and sent.model is None,
    )


def detokenize_request(body: bytes, limits: Limits) -> DetokenizeRequest:
    """Return the checked request.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode(body, DetokenizeBody)
    param, raw = _given(sent, _TOKEN_FIELDS)
    tokens, is_single = token_lists(raw, limits, param=param)
    return DetokenizeRequest(
        model=sent.model,
        tokens=tokens,
        is_single=is_single,
        param=param,
        with_specials=sent.skip_special_tokens is False,
        is_tei=param == "ids" and sent.model is None,
    )


def segment_request(body: bytes, limits: Limits) -> SegmentRequest:
    """Return the checked request.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode(body, SegmentBody)
    texts = {"text": sent.text, "input": sent.input, "content": sent.content}
    param = next((name for name, text in texts.items() if text is not None), "text")
    text = texts[param]
    if text is None:
        raise InvalidRequest("text is missing", param=param)
    require_text(text, limits, param=param)
    overlap = sent.overlap or 0
    if sent.tokens_max is not None and overlap > sent.tokens_max // 2:
        raise InvalidRequest("overlap is at most half of tokens_max", param="overlap")
    return SegmentRequest(
        model=sent.model,
        text=text,
        by=sent.by or "sentences",
        tokens_max=sent.tokens_max,
        overlap=overlap,
        chars_max=sent.max_chunk_length,
        return_text=sent.return_text is not False,
        is_jina=sent.return_chunks is not None or param == "content",
    )


def token_lists(raw: msgspec.Raw, limits: Limits, *, param: str) -> tuple[list[list[int]], bool]:
    """Return lists of token ids, and whether one list was sent by itself.

    They are counted, by their commas, before any of them becomes an object; a list of too many
    lists is found the same way, by its brackets.

    Raises:
        InvalidRequest: empty, too many, or no whole numbers from 0; `param` names the field.
    """
    body = bytes(raw).lstrip()
    if not body.startswith(b"["):
        raise InvalidRequest(f"{param} must be a list of token ids", param=param)
    is_single = not body[1:65].lstrip().startswith(b"[")
    if body.count(b",") >= limits.request_tokens_max:
        raise InvalidRequest(
            f"{param} has more than {limits.request_tokens_max} ids; split it", param=param
        )
    if body.count(b"[") - 1 > limits.inputs_max:
        raise InvalidRequest(
            f"{param} has more than {limits.inputs_max} items; split it", param=param
        )
    found: list[list[int]]
    if is_single:
        found = [decode(body, list[TokenId], param=param)]
    else:
        found = decode(body, list[list[TokenId]], param=param)
    for index, ids in enumerate(found):
        if not ids:
            where = param if is_single else f"{param}[{index}]"
            raise InvalidRequest(f"{where} is empty", param=param)
    return found, is_single


def _given(sent: Any, names: tuple[str, ...]) -> tuple[str, msgspec.Raw]:
    """Return the first of some fields that was sent, and its name."""
    for name in names:
        raw: msgspec.Raw = getattr(sent, name)
        if bytes(raw).strip() not in (b"", b"null"):
            return name, raw
    raise InvalidRequest(f"{names[0]} is missing", param=names[0])
