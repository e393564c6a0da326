"""Caller: requests to a server's HTTP API, with a deadline for each.

Owns addresses, the admin token, and which error a failure is. Nothing but the family of
`ServerUnreachable` leaves it, whatever the other side answers.
"""

import asyncio
import uuid
from functools import partial
from typing import Any, NoReturn, Self, TypeVar

import httpx2
import msgspec

from appliance.client.errors import ServerHangs, ServerLost, ServerRefused, StrangeAnswer
from appliance.client.paid import Ranking, Vectors, ranking_of, vectors_of
from appliance.client.verbs import Verb, target
from appliance.client.watch import Watch, watched
from appliance.core.clock import SystemClock
from appliance.core.text import words_of
from appliance.wire.keys import MintOrder, TopUpOrder

T = TypeVar("T")
CLOCK = SystemClock()

CONNECT_S = 3.0
PAID_S = 120.0
"""Seconds for one paid call, which may load a model first."""
WAIT_S = 60
"""Seconds that the server may hold a paid call while it loads the model."""
REFUSED = 400
READS = "GET"
"""The method that changes nothing."""
PATIENCE_S = 30.0
"""Seconds that the command line waits for every answer: nothing is drawn meanwhile."""
UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises: not JSON, not UTF-8, another shape, or nested too deeply."""


class AsyncCaller:
    """Calls one server from an event loop."""

    def __init__(
        self, url: str, token: str, *, connect_url: str = "", is_local: bool = True
    ) -> None:
        """Prepare for a server; nothing is sent yet.

        `connect_url` is where it is reached, if not at its own address: a server that listens on
        all addresses is reached at loopback. `is_local`: a server of this machine, whose
        certificate need not be trusted by others.

        Raises:
            ServerLost: the address or the token cannot be used at all.
        """
        self.url = url
        try:
            # A proxy from the environment must not see the admin token.
            self._http = httpx2.AsyncClient(
                base_url=connect_url or url,
                timeout=httpx2.Timeout(None, connect=CONNECT_S),
                trust_env=False,
                verify=not is_local,
            )
            self._headers = {"authorization": f"Bearer {token}".encode("ascii").decode("ascii")}
        except (httpx2.InvalidURL, ValueError) as error:
            raise ServerLost(f"{url} with this token cannot be called: {error}") from None
        self._is_local = is_local

    def __repr__(self) -> str:
        """Name the server, and not the token."""
        return f"<{type(self).__name__} {self.url}>"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def do(
        self,
        verb: Verb[T],
        *names: str,
        order: msgspec.Struct | None = None,
        deadline_s: float = 0.0,
    ) -> T:
        """Send a request of the operator's API and return its answer.

        `names` fill the verb's path, then its query. `deadline_s`: seconds to wait at least, for
        who waits longer than the verb's own deadline.

        Raises:
            ServerLost: the server does not answer.
            ServerHangs: it accepts the request and does not answer within the verb's deadline.
            ServerRefused: it answers no.
            StrangeAnswer: the answer is not of the verb's type.
        """
        headers, tries = self._headers, 1
        if isinstance(order, MintOrder | TopUpOrder):
            # Should the connection break, it can be sent again: the server does it once.
            headers, tries = {**headers, "idempotency-key": uuid.uuid4().hex}, 2
        content = None if order is None else msgspec.json.encode(order)
        seconds = max(verb.deadline_s, deadline_s)
        while True:
            tries -= 1
            try:
                answer = await self._send(
                    verb.method, target(verb, names), content, headers, seconds
                )
                break
            except ServerLost:
                if not tries:
                    raise
        if answer.status_code >= REFUSED:
            raise refusal_of(answer.content)
        try:
            return msgspec.json.decode(answer.content, type=verb.answer)
        except UNDECODABLE:
            raise StrangeAnswer(
                f"{self.url} is of another version of gigarouter; start it again"
            ) from None

    async def embed(self, key: str, model: str, texts: list[str]) -> Vectors:
        """Make a paid call for the vectors of texts, as a client would.

        Raises:
            ServerUnreachable: one of its family, as for `do`.
        """
        answer, ms = await self._pay(key, "/v1/embeddings", {"model": model, "input": texts})
        return vectors_of(answer.content, answer.headers.get("x-cost", "0"), ms)

    async def rerank(self, key: str, model: str, query: str, documents: list[str]) -> Ranking:
        """Make a paid call for the order of documents, as a client would.

        Raises:
            ServerUnreachable: one of its family, as for `do`.
        """
        body = {"model": model, "query": query, "documents": documents, "return_documents": True}
        answer, ms = await self._pay(key, "/v1/rerank", body)
        return ranking_of(answer.content, answer.headers.get("x-cost", "0"), ms)

    async def _pay(
        self, key: str, path: str, body: dict[str, Any]
    ) -> tuple[httpx2.Response, float]:
        headers = {"authorization": f"Bearer {key}", "prefer": f"wait={WAIT_S}"}
        began_ns = CLOCK.monotonic_ns()
        answer = await self._send("POST", path, msgspec.json.encode(body), headers, PAID_S)
        if answer.status_code >= REFUSED:
            raise ServerRefused(f"{answer.status_code}: {reason_of(answer.content)}")
        return answer, (CLOCK.monotonic_ns() - began_ns) / 1e6

    async def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: dict[str, str],
        deadline_s: float,
    ) -> httpx2.Response:
        try:
            async with asyncio.timeout(deadline_s):
                return await self._http.request(method, path, content=content, headers=headers)
        except (TimeoutError, httpx2.TimeoutException) as error:
            self._say_late(error, method, deadline_s)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as error:
            reason = words_of(error)
            fix = "" if self._is_local else ". Check the address, the network, and that it runs"
            raise ServerLost(f"the server at {self.url} does not answer: {reason}{fix}") from None

    def _say_late(self, error: Exception, method: str, deadline_s: float) -> NoReturn:
        if isinstance(error, httpx2.ConnectTimeout):
            if not self._is_local:
                raise ServerLost(
                    f"the server at {self.url} does not answer within {CONNECT_S:.0f} s"
                ) from None
            deadline_s = CONNECT_S  # the kernel accepts for it; only TLS can take so long
            method = READS
        done = "" if method == READS else "It may do it still: look before you repeat it. "
        raise ServerHangs(
            f"the server at {self.url} hangs: it accepts connections and gave no answer within "
            f"{deadline_s:.0f} s. {done}Look at its log; if it stays so, end it and start it again."
        ) from None


class Caller:
    """Calls one server and waits for each answer, without an event loop around it."""

    def __init__(self, url: str, token: str, *, connect_url: str = "") -> None:
        """Prepare for a server of this machine; nothing is sent yet."""
        self._runner = asyncio.Runner()
        self._caller = AsyncCaller(url, token, connect_url=connect_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._caller.close())
        self._runner.close()

    def do(
        self,
        verb: Verb[T],
        *names: str,
        order: msgspec.Struct | None = None,
        watch: Watch[Any] | None = None,
    ) -> T:
        """Send a request of the operator's API and return its answer; `watch` is asked meanwhile.

        Raises:
            ServerUnreachable: one of its family, as for `AsyncCaller.do`.
        """
        work = self._caller.do(verb, *names, order=order, deadline_s=PATIENCE_S)
        if watch is not None:
            work = watched(work, partial(self._caller.do, watch.verb, *watch.names), watch.show)
        return self._runner.run(work)


class _Named(msgspec.Struct):
    param: str | None = None


class _Detail(msgspec.Struct):
    detail: str


class _Refusal(msgspec.Struct):
    error: _Named = msgspec.field(default_factory=_Named)


def refusal_of(content: bytes) -> ServerRefused:
    """Return the refusal that an answer is, with the field that it names."""
    try:
        param = msgspec.json.decode(content, type=_Refusal).error.param
    except UNDECODABLE:
        param = None
    return ServerRefused(reason_of(content), param=param)


def reason_of(content: bytes) -> str:
    """Return why a server refused, in its own words if it is one of ours."""
    try:
        return msgspec.json.decode(content, type=_Detail).detail
    except UNDECODABLE:
        return "the server answered something that is not ours"
