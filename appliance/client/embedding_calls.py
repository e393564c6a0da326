"""EmbeddingCalls: paid calls for many vectors, tried again until they are answered or refused.

Owns what is tried again, and when. Each call has an Idempotency-Key that follows from what is asked
and where it stands: one whose answer was lost is charged once, in this run or in a later one.
"""

import asyncio
import binascii
import hashlib
import hmac
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2
import msgspec

from appliance.client.caller import CONNECT_S, PAID_S, UNDECODABLE, reason_of
from appliance.client.errors import ServerLost, ServerRefused, StrangeAnswer
from appliance.client.paid import COST_CHARS_MAX
from appliance.core.text import words_of
from appliance.core.units import credits_of, picocredits

TRIES_MAX = 12
FIRST_S = 0.5
LONGEST_S = 60.0
PASSING = (429, 500, 502, 503)
"""Statuses after which the same call may succeed, unless `x-should-retry` says no."""
OK = 200
CONFLICT = 409
SPENT = b"idempotency_key_spent"
"""The code of a call that was repeated for nothing as often as one may be."""
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

    def __init__(
        self, url: str, key: str, *, is_local: bool, retried: Callable[[str], None] = lambda _: None
    ) -> None:
        """Prepare for a server; nothing is sent yet.

        `is_local`: a server of this machine, whose certificate need not be trusted by others.
        `retried` is told in a line why a call is tried again, and when.

        Raises:
            ServerLost: the address or the key cannot be used at all.
        """
        self._url = url
        self._retried = retried
        self._secret = key.encode()
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

    async def embed(self, body: dict[str, Any], *, tier: str, place: int) -> EmbeddedTexts:
        """Return the vectors of a call; `place` tells it from others with the same texts.

        Raises:
            ServerRefused: the server answered no, and would again.
            ServerLost: it did not answer, however often it was asked.
            StrangeAnswer: it answered something else.
        """
        content = msgspec.json.encode({**body, "encoding_format": "base64"})
        headers = {
            **self._headers,
            "x-tier": tier,
            "idempotency-key": self._idempotency_key(content, f"{tier}|{place}"),
            "prefer": "wait=60",
        }
        last: Exception = ServerLost(f"{self._url} does not answer")
        for number in range(TRIES_MAX):
            wait_s = FIRST_S * 2**number
            try:
                answer = await self._http.post("/v1/embeddings", content=content, headers=headers)
            except httpx2.UnsupportedProtocol as error:
                raise ServerLost(f"{self._url} cannot be called: {error}") from None
            except httpx2.TransportError as error:
                last = ServerLost(
                    f"{self._url} does not answer: {words_of(error)}. Check --url, the "
                    "network, and that the server runs (gigarouter serve)"
                )
            else:
                if answer.status_code == OK:
                    return _read(answer)
                last = ServerRefused(reason_of(answer.content))
                if answer.status_code == CONFLICT and SPENT in answer.content:
                    following = self._idempotency_key(content, headers["idempotency-key"])
                    headers["idempotency-key"] = following
                    continue
                if not _is_passing(answer):
                    raise last
                wait_s = max(wait_s, _retry_after_s(answer))
            if number + 1 < TRIES_MAX:
                # Not all calls at the same moment.
                wait_s = min(wait_s, LONGEST_S) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
                self._retried(f"{last}; tried again in {wait_s:.1f} s")
                await asyncio.sleep(wait_s)
        raise last

    def _idempotency_key(self, content: bytes, told_apart_by: str) -> str:
        """Return the same for the same call, in every run.

        It is made with the key that pays: from a server's books alone nobody can try out what the
        texts may have been.
        """
        made = hmac.new(self._secret, f"{told_apart_by}|".encode(), hashlib.sha256)
        made.update(content)
        return made.hexdigest()


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
