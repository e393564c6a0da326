"""EmbeddingCalls: paid calls for many vectors, tried again until they are answered or refused.

Owns what is tried again, and when. Each call has an Idempotency-Key: one whose answer was lost is
charged once.
"""

import asyncio
import binascii
import random
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2
import msgspec

from appliance.client.caller import CONNECT_S, PAID_S, UNDECODABLE, reason_of
from appliance.client.errors import ServerLost, ServerRefused, StrangeAnswer
from appliance.client.paid import COST_CHARS_MAX
from appliance.core.units import credits_of, picocredits

TRIES_MAX = 12
FIRST_S = 0.5
LONGEST_S = 60.0
PASSING = (429, 500, 502, 503)
"""Statuses after which the same call may succeed, unless `x-should-retry` says no."""
OK = 200
NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """The answer to one call."""

    rows: list[bytes]
    """A vector for each text: float32, little-endian; all of one length."""
    tokens: int
    cost: Decimal
    """Credits; 0 if it was paid for before, or the server says nothing of it."""
    fingerprint: str
    """Of the model: vectors of two fingerprints do not go together."""


class _Vector(msgspec.Struct):
    embedding: str


class _Usage(msgspec.Struct):
    total_tokens: int


class _Body(msgspec.Struct):
    data: list[_Vector]
    usage: _Usage


class EmbeddingCalls:
    """Calls one server with one key."""

    def __init__(self, url: str, key: str, *, is_local: bool) -> None:
        """Prepare for a server; nothing is sent yet.

        `is_local`: a server of this machine, whose certificate need not be trusted by others.

        Raises:
            ServerLost: the address or the key cannot be used at all.
        """
        self._url = url
        try:
            self._http = httpx2.AsyncClient(
                base_url=url,
                timeout=httpx2.Timeout(PAID_S, connect=CONNECT_S),
                trust_env=False,
                verify=not is_local,
            )
            self._headers = {"authorization": f"Bearer {key}".encode("ascii").decode("ascii")}
        except (httpx2.InvalidURL, ValueError) as error:
            raise ServerLost(f"{url} with this key cannot be called: {error}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def embed(self, body: dict[str, Any], *, tier: str) -> EmbeddedTexts:
        """Return the vectors of a call.

        Raises:
            ServerRefused: the server answered no, and would again.
            ServerLost: it did not answer, however often it was asked.
            StrangeAnswer: it answered something else.
        """
        headers = {
            **self._headers,
            "x-tier": tier,
            "idempotency-key": uuid.uuid4().hex,
            "prefer": "wait=60",
        }
        content = msgspec.json.encode({**body, "encoding_format": "base64"})
        last: Exception = ServerLost(f"{self._url} does not answer")
        for number in range(TRIES_MAX):
            wait_s = FIRST_S * 2**number
            try:
                answer = await self._http.post("/v1/embeddings", content=content, headers=headers)
            except httpx2.TransportError as error:
                last = ServerLost(f"{self._url} does not answer: {str(error) or repr(error)}")
            else:
                if answer.status_code == OK:
                    return _read(answer)
                last = ServerRefused(reason_of(answer.content))
                if not _is_passing(answer):
                    raise last
                wait_s = max(wait_s, _retry_after_s(answer))
            # Not all calls at the same moment.
            await asyncio.sleep(min(wait_s, LONGEST_S) * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        raise last


def _is_passing(answer: httpx2.Response) -> bool:
    if answer.headers.get("x-should-retry") == "false":
        return False
    return answer.status_code in PASSING or answer.headers.get("x-should-retry") == "true"


def _retry_after_s(answer: httpx2.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0  # noqa: PLR2004 - a day


def _credits(text: str) -> Decimal:
    try:
        return credits_of(picocredits(text[:COST_CHARS_MAX]))
    except ValueError:
        raise StrangeAnswer("the server answered a cost that is none") from None


def _read(answer: httpx2.Response) -> EmbeddedTexts:
    try:
        body = msgspec.json.decode(answer.content, type=_Body)
        rows = [binascii.a2b_base64(each.embedding, strict_mode=True) for each in body.data]
    except (*UNDECODABLE, binascii.Error):
        raise StrangeAnswer("the server answered something that is no vectors") from None
    if len({len(row) for row in rows}) != 1 or not rows[0] or len(rows[0]) % NUMBER_BYTES:
        raise StrangeAnswer("the server answered vectors of different sizes")
    is_replay = answer.headers.get("idempotent-replayed") == "true"
    cost = Decimal(0) if is_replay else _credits(answer.headers.get("x-cost", "0"))
    fingerprint = answer.headers.get("x-model-fingerprint", "")
    return EmbeddedTexts(rows, body.usage.total_tokens, cost, fingerprint)
