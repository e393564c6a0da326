"""Head: what is checked of every request before its key and its body are looked at.

Owns the rules of RFC 9110 and RFC 9112 that the HTTP server leaves to the application, and how HEAD
is answered.
"""

import asyncio
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from appliance.api.request import is_http_1_0, tokens_of
from appliance.core.errors import ExpectationFailed, InvalidRequest, UnsupportedTransferCoding

SINGLE = (
    "Authorization",
    "X-Api-Key",
    "Api-Key",
    "Content-Type",
    "Idempotency-Key",
    "X-Tier",
    "X-Dry-Run",
    "Last-Event-ID",
)
"""Headers with one value. Of two, another program between may have read the other one."""


async def check_head(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse a request whose head is ambiguous or asks for what is not done here.

    It waits for nothing: Litestar takes each guard that is not a coroutine to another thread.

    Raises:
        InvalidRequest: a header that has one value is there twice, or the framing is ambiguous, or
            HTTP/1.1 without a host.
        UnsupportedTransferCoding: the body is framed in another way than by chunks.
        ExpectationFailed: anything but 100-continue is expected.
    """
    headers = connection.headers
    names = [name.lower() for name, _ in connection.scope["headers"]]
    if len(names) != len(set(names)):
        for name in SINGLE:
            if names.count(name.lower().encode()) > 1:
                raise InvalidRequest(f"{name} is there twice; send it once", param=name)
    hosts = headers.getall("host", [])
    if len(hosts) > 1 or (not any(hosts) and not is_http_1_0(connection)):
        raise InvalidRequest("HTTP/1.1 needs one Host header", param="Host")
    codings = tokens_of(connection, "transfer-encoding")
    if codings and codings != ["chunked"]:
        raise UnsupportedTransferCoding(", ".join(codings))
    if codings and "content-length" in headers:
        raise InvalidRequest(
            "Content-Length and Transfer-Encoding exclude each other", param="Content-Length"
        )
    for expectation in tokens_of(connection, "expect"):
        if expectation != "100-continue" and not is_http_1_0(connection):
            raise ExpectationFailed(expectation)


async def answer_head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HEAD as GET is answered, without the body.

    An answer that streams is ended after its head: to the handler it is as if the client had gone.
    """
    is_answered = asyncio.Event()

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_answered.is_set():
            is_answered.set()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive_until_answered() -> Any:
        receiving = asyncio.ensure_future(receive())
        answered = asyncio.ensure_future(is_answered.wait())
        try:
            await asyncio.wait((receiving, answered), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            return {"type": "http.disconnect"}
        finally:
            receiving.cancel()
            answered.cancel()

    asked = scope.copy()
    asked["method"] = "GET"  # type: ignore[typeddict-unknown-key]  # only HTTP has methods
    await app(asked, receive_until_answered, send_head)
