"""Request: reading one request within its bounds.

Owns the request id, the body's limits in bytes and seconds, and the request headers we honour.
"""

import asyncio
import hashlib
import re
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection

from appliance.core import ids
from appliance.core.errors import BodyTooLarge, InvalidRequest
from appliance.core.limits import Limits
from appliance.ledger.entry import IdempotencyKey
from appliance.pricing.tariff import Tier

AnyRequest = Request[Any, Any, Any]

DRAIN_FACTOR = 4
"""A refused body is read and thrown away up to this many times the limit, so that a client that
is still sending hears the 413 instead of a broken pipe."""

UNREAD_BYTES = 64 * 1024
UNREAD_SECONDS = 1.0
"""The same for a body whose key is refused, but strangers are not listened to for long."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d+)"?\s*(?=[,;]|$)', re.ASCII | re.IGNORECASE)


def request_id_of(request: AnyRequest) -> str:
    """Return the client's own request id if it can be shown, else one of ours; always the same."""
    known = request.scope["state"].get("request_id")
    if known is None:
        sent = request.headers.get("x-request-id", "")
        known = sent if _REQUEST_ID.fullmatch(sent) else ids.request_id()
        request.scope["state"]["request_id"] = known
    return str(known)


def credential_of(request: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Return the key that the request carries: bearer, else `x-api-key`, else `api-key`.

    The first of these headers counts, whatever it holds: a second channel must not open what the
    first refused.
    """
    headers = request.headers
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else authorization
    return headers.get("x-api-key", headers.get("api-key"))


def note_headers(request: AnyRequest, headers: dict[str, str]) -> None:
    """Keep headers for the answer, should it become a refusal."""
    request.scope["state"]["noted_headers"] = headers


def noted_headers(request: AnyRequest) -> dict[str, str]:
    """Return what was kept for a refusal."""
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
    """Return the seconds of `Prefer: wait=N`, capped, or None (RFC 7240: malformed is ignored)."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    # More digits than any wait we grant are as good as nine of them, and cheaper to read.
    return min(int(match[1][:9]), limits.wait_seconds_max) if match else None


def is_dry_run(request: AnyRequest) -> bool:
    """Say whether the client only wants to know the price.

    Raises:
        InvalidRequest: the header is neither true nor false.
    """
    asked = request.headers.get("x-dry-run", "false").strip().lower()
    if asked not in ("true", "false", "1", "0"):
        raise InvalidRequest("X-Dry-Run is 'true' or 'false'", param="X-Dry-Run")
    return asked in ("true", "1")


def idempotency_key_of(
    request: AnyRequest, task: str, tier: Tier, content: bytes
) -> IdempotencyKey | None:
    """Return how this call is known again by its Idempotency-Key, or None if it has none.

    The fingerprint is keyed by the client's own key, which is not kept: whoever reads the books
    cannot try out what the body may have been.

    Raises:
        InvalidRequest: the header is empty, too long, or has spaces or other letters than ASCII's.
    """
    sent = request.headers.get("idempotency-key")
    if sent is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(sent):
        raise InvalidRequest(
            "Idempotency-Key has 1 to 255 visible ASCII characters", param="Idempotency-Key"
        )
    secret = hashlib.sha512(sent.encode()).digest()
    fingerprint = hashlib.blake2b(f"{task}|{tier}|".encode(), digest_size=32, key=secret)
    fingerprint.update(content)
    return IdempotencyKey(hashlib.sha256(sent.encode()).digest(), fingerprint.digest())


async def refuse_large(request: AnyRequest, limits: Limits) -> None:
    """Refuse a body that says it is too large.

    Raises:
        BodyTooLarge: as said.
    """
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limits.body_bytes_max:
        await _discard(request, limits.body_bytes_max * DRAIN_FACTOR, limits.body_seconds_max)
        raise BodyTooLarge(bytes_max=limits.body_bytes_max)


async def discard_unread(request: AnyRequest) -> None:
    """Read what a client without a good key is still sending, if it is not much."""
    await _discard(request, UNREAD_BYTES, UNREAD_SECONDS)


async def read_body(request: AnyRequest, limits: Limits) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLarge: it has more bytes than allowed, whatever its length header said.
        InvalidRequest: it took longer than allowed, or broke off.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds_max):
            is_more = True
            while is_more and size <= limits.body_bytes_max:
                message = await request.receive()
                if message["type"] != "http.request":
                    # The client hung up within its body; one that closed only its own side reads.
                    raise InvalidRequest("The body broke off.")
                chunks.append(message["body"])
                size += len(message["body"])
                is_more = message["more_body"]
    except TimeoutError:
        raise InvalidRequest(
            f"The body did not arrive within {limits.body_seconds_max:g} s."
        ) from None
    if size > limits.body_bytes_max:
        await _discard(request, limits.body_bytes_max * DRAIN_FACTOR, limits.body_seconds_max)
        raise BodyTooLarge(bytes_max=limits.body_bytes_max)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _discard(request: AnyRequest, left: int, seconds: float) -> None:
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
