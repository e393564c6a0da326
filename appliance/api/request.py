"""Request: reading one request within its bounds.

Owns the request id, the body's limits in bytes and seconds, and the request headers that count.

A body is first asked for when its request has been accepted. Until then a client that sent
`Expect: 100-continue` holds it back: the HTTP server answers 100 as soon as the body is read from.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection

from appliance.accounts.held_bytes import CallBytes
from appliance.accounts.key import checked_idempotency_key
from appliance.core import ids
from appliance.core.errors import (
    BodyTooLarge,
    InvalidRequest,
    QueueFull,
    UnsupportedCharset,
    UnsupportedEncoding,
)
from appliance.core.limits import Limits
from appliance.ledger.entry import IdempotencyKey
from appliance.pricing.tariff import Tier

AnyRequest = Request[Any, Any, Any]

DRAIN_FACTOR = 4
"""A refused body of a good key is read and thrown away up to this many times the limit, so that a
client that is still sending can read the refusal instead of failing with a broken pipe."""

UPLOAD_BYTES_PER_S = 100_000
"""What an upload must bring at least, once a first time-out is over."""
UNREAD_BYTES = 64 * 1024
UNREAD_SECONDS = 1.0
"""The same bounds for a body whose key is refused."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]*)', re.ASCII | re.IGNORECASE)
_UTF_8 = {"utf-8", "utf8", "us-ascii", "ascii"}
"""ASCII is a part of UTF-8."""
TRACE_PARENT_MAX = 200
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d+)"?\s*(?=[,;]|$)', re.ASCII | re.IGNORECASE)


def request_id_of(request: AnyRequest) -> str:
    """Return the client's own request id if it is printable, else a new one; the same each time."""
    known = request.scope["state"].get("request_id")
    if known is None:
        sent = request.headers.get("x-request-id", "")
        known = sent if _REQUEST_ID.fullmatch(sent) else ids.request_id()
        request.scope["state"]["request_id"] = known
    return str(known)


def trace_parent_of(request: AnyRequest) -> str:
    """Return the header `traceparent` (W3C Trace Context), unless it is too long to be one."""
    sent = request.headers.get("traceparent", "")
    return sent if len(sent) <= TRACE_PARENT_MAX else ""


def credential_of(request: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Return the key that the request carries: bearer, else `x-api-key`, else `api-key`.

    The first of these headers counts, whatever it holds: what one header is refused for, a second
    one must not allow.
    """
    headers = request.headers
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else authorization
    return headers.get("x-api-key", headers.get("api-key"))


def note_known(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Keep that the request carries a good credential."""
    connection.scope["state"]["is_known"] = True


def is_known(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Say whether the request turned out to carry a good credential."""
    return bool(connection.scope["state"].get("is_known"))


def note_headers(request: AnyRequest, headers: dict[str, str]) -> None:
    """Keep headers for the answer, in case the request is refused."""
    request.scope["state"]["noted_headers"] = headers


def noted_headers(request: AnyRequest) -> dict[str, str]:
    """Return the headers that were kept for a refusal."""
    noted: dict[str, str] = request.scope["state"].get("noted_headers", {})
    return noted


def tier_of(request: AnyRequest) -> Tier:
    """Return the tier asked for, realtime if none is.

    Raises:
        InvalidRequest: there is no such tier.
    """
    asked = request.headers.get("x-tier", "realtime").strip().lower()
    if asked == "realtime":
        return "realtime"
    if asked == "batch":
        return "batch"
    raise InvalidRequest(f"X-Tier is 'realtime' or 'batch', not {asked[:50]!r}", param="X-Tier")


def preferred_wait(request: AnyRequest, limits: Limits) -> int | None:
    """Return the seconds of `Prefer: wait=N`, capped, or None (RFC 7240: malformed is ignored).

    Several `Prefer` headers are one list; of several waits the first counts.
    """
    match = _WAIT.search(", ".join(request.headers.getall("prefer", [])))
    # Nine digits exceed every wait that is granted; more would only cost time to parse.
    return min(int(match[1][:9]), limits.wait_seconds_max) if match else None


def is_dry_run(request: AnyRequest) -> bool:
    """Say whether only the price is asked for.

    Raises:
        InvalidRequest: the header is neither true nor false.
    """
    asked = request.headers.get("x-dry-run", "false").strip().lower()
    if asked not in ("true", "false", "1", "0"):
        raise InvalidRequest("X-Dry-Run is 'true' or 'false'", param="X-Dry-Run")
    return asked in ("true", "1")


def idempotency_key_of(
    request: AnyRequest, task: str, shape: str, tier: Tier, content: bytes
) -> IdempotencyKey | None:
    """Return what identifies this call if it is sent again, or None without an Idempotency-Key.

    The fingerprint is keyed by the header's value, which is not kept: from the books alone nobody
    can try out what the body may have been.

    Raises:
        InvalidRequest: the header is empty, too long, or holds other than visible ASCII characters.
    """
    sent = request.headers.get("idempotency-key")
    if sent is None:
        return None
    secret = hashlib.sha512(checked_idempotency_key(sent).encode()).digest()
    # One body may hold the fields of several shapes, and a path the model.
    read_as = f"{shape}|" if shape else ""
    fingerprint = hashlib.blake2b(f"{task}|{tier}|{read_as}".encode(), digest_size=32, key=secret)
    fingerprint.update(content)
    return IdempotencyKey(hashlib.sha256(sent.encode()).digest(), fingerprint.digest())


async def refuse_large(request: AnyRequest, limits: Limits) -> None:
    """Refuse a body that is declared too large and was not sent yet, before the key is looked at.

    A body that is on its way is refused by `read_body`, which drains it: for a good key alone.

    Raises:
        BodyTooLarge: as said.
    """
    if _awaits_continue(request) and _declared_bytes(request) > limits.body_bytes_max:
        raise BodyTooLarge(bytes_max=limits.body_bytes_max)


async def discard_unread(request: AnyRequest) -> None:
    """Read what a client without a good key is still sending, within small bounds."""
    await _discard(request, UNREAD_BYTES, UNREAD_SECONDS)


async def read_body(request: AnyRequest, limits: Limits, held: CallBytes | None = None) -> bytes:
    """Return the whole body; call it once the client's key is known to be good.

    With `held`, its bytes are counted there before they are read.

    Raises:
        QueueFull: too much is held already.
        BodyTooLarge: it has more bytes than allowed, declared or sent.
        UnsupportedEncoding: it is compressed.
        UnsupportedCharset: it is said not to be UTF-8.
        InvalidRequest: it took longer than allowed, or broke off.
    """
    try:
        _require_readable(request, limits)
        return await _read(request, limits, held)
    except (BodyTooLarge, UnsupportedEncoding, UnsupportedCharset, QueueFull):
        await _discard(request, limits.body_bytes_max * DRAIN_FACTOR, limits.body_seconds_max)
        raise


async def _read(request: AnyRequest, limits: Limits, held: CallBytes | None) -> bytes:
    chunks: list[bytes] = []
    size, counted = 0, _declared_bytes(request)
    if held is not None:
        held.take(counted)
    request.scope["state"]["body_was_asked_for"] = True
    try:
        async with asyncio.timeout(limits.body_seconds_max):
            is_more = True
            while is_more and size <= limits.body_bytes_max:
                message = await request.receive()
                if message["type"] != "http.request":
                    # The client may have closed only its own side, and can still read this.
                    raise InvalidRequest("The body broke off.")
                chunks.append(message["body"])
                size += len(message["body"])
                if held is not None and size > counted:
                    held.take(size - counted)
                    counted = size
                is_more = message["more_body"]
    except TimeoutError:
        raise InvalidRequest(
            f"The body did not arrive within {limits.body_seconds_max:g} s."
        ) from None
    if size > limits.body_bytes_max:
        raise BodyTooLarge(bytes_max=limits.body_bytes_max)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def body_pieces(request: AnyRequest, limits: Limits) -> AsyncIterator[bytes]:
    """Yield a body while it arrives; each piece in time, and the whole at `UPLOAD_BYTES_PER_S`.

    The time is over only while a piece is waited for, never in the middle of what is done with one.

    Raises:
        BodyTooLarge: it has more bytes than `limits` allow, declared or sent.
        UnsupportedEncoding: it is compressed.
        InvalidRequest: it took longer than allowed, or broke off.
    """
    _require_readable(request, limits)
    request.scope["state"]["body_was_asked_for"] = True
    seconds_max, size, is_more = limits.body_seconds_max, 0, True
    now_s = asyncio.get_running_loop().time
    ends_s = now_s() + seconds_max + limits.body_bytes_max / UPLOAD_BYTES_PER_S
    while is_more:
        try:
            async with asyncio.timeout_at(min(ends_s, now_s() + seconds_max)):
                message = await request.receive()
        except TimeoutError:
            raise InvalidRequest("The body did not arrive in time.") from None
        if message["type"] != "http.request":
            raise InvalidRequest("The body broke off.")
        size += len(message["body"])
        if size > limits.body_bytes_max:
            raise BodyTooLarge(bytes_max=limits.body_bytes_max)
        is_more = message["more_body"]
        request.scope["state"]["body_is_read"] = not is_more
        if message["body"]:
            yield message["body"]


async def discard_rest(request: AnyRequest, limits: Limits) -> None:
    """Read some of what a client still sends, so that it can read its refusal."""
    if not request.scope["state"].get("body_is_read"):
        await _discard(request, limits.body_bytes_max, limits.body_seconds_max)


def _require_readable(request: AnyRequest, limits: Limits) -> None:
    """Refuse by its headers a body that would not be read.

    Raises:
        BodyTooLarge, UnsupportedEncoding, UnsupportedCharset: as said.
    """
    if _declared_bytes(request) > limits.body_bytes_max:
        raise BodyTooLarge(bytes_max=limits.body_bytes_max)
    for encoding in tokens_of(request, "content-encoding"):
        if encoding != "identity":
            raise UnsupportedEncoding(encoding)
    charset = _CHARSET.search(request.headers.get("content-type", ""))
    if charset is not None and charset[1].lower() not in _UTF_8:
        raise UnsupportedCharset(charset[1])


def tokens_of(request: ASGIConnection[Any, Any, Any, Any], name: str) -> list[str]:
    """Return the members of a header that is a list, in lower case, of all lines of that name."""
    listed = ",".join(request.headers.getall(name, []))
    return [token for each in listed.split(",") if (token := each.strip().lower())]


def is_http_1_0(request: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Say whether the client speaks HTTP/1.0, which knows no expectations."""
    return request.scope["http_version"] in ("1", "1.0")  # "1" is Granian's


def _declared_bytes(request: AnyRequest) -> int:
    """Return the length that the body is said to have; 0 where it is not said."""
    length = request.headers.get("content-length", "")
    # Twenty digits exceed every limit; more would only cost time to parse.
    return int(length[:20]) if length.isascii() and length.isdigit() else 0


def _awaits_continue(request: AnyRequest) -> bool:
    """Say whether the client holds its body back until the server answers 100."""
    return (
        "100-continue" in tokens_of(request, "expect")
        and not is_http_1_0(request)
        and not request.scope["state"].get("body_was_asked_for")
    )


async def _discard(request: AnyRequest, left: int, seconds: float) -> None:
    if _awaits_continue(request):
        return  # nothing is on its way, and to read would ask for it
    try:
        async with asyncio.timeout(seconds):
            while left > 0:
                message = await request.receive()
                if message["type"] != "http.request":
                    return
                left -= len(message["body"])
                if not message["more_body"]:
                    return
    except TimeoutError:
        return
