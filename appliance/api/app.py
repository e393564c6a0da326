"""App: every route, and what the routes are given.

Owns the list of routes and the wiring of Litestar.
"""

from collections.abc import Callable
from typing import Any

from litestar import Litestar, Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.routes import HTTPRoute
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from appliance.api import audit, error_responses
from appliance.api.disconnect import ClientGone
from appliance.api.edge import Edge, answer_refusal
from appliance.api.guard import OperatorGuard
from appliance.api.head import answer_head, check_head
from appliance.api.page import template_config
from appliance.api.request import AnyRequest, note_headers, request_id_of
from appliance.api.routes import (
    account,
    account_calls,
    batches,
    cohere,
    embeddings,
    files,
    ollama,
    operator,
    pages,
    public,
    rerank,
    tei,
    tokens,
)
from appliance.api.sending import TimedSend
from appliance.api.services import Services
from appliance.core.errors import ApplianceError


class Application(Litestar):
    """Litestar, which answers HEAD wherever there is a GET, behind the edge."""

    edge: Edge
    answer_seconds_max: float
    on_refused: Callable[[AnyRequest, ApplianceError], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]  # Litestar's own adds the lifespan's types
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        with self.edge.connections.asking(scope["client"]):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        request = Request[Any, Any, Any](scope)
        try:
            self.edge.check(request)
        except ApplianceError as error:
            self.on_refused(request, error)
            note_headers(request, self.edge.cors.headers(request))
            await self.edge.slow_down(request)
            await answer_refusal(error, scope, send)
            return
        cors = self.edge.cors
        if cors.is_preflight(request) and cors.allows(request):
            await cors.answer_preflight(request, send)
            return
        timed = TimedSend(send, seconds_max=self.answer_seconds_max)
        try:
            if scope["method"] == "HEAD":
                await answer_head(super().__call__, scope, receive, timed)
            else:
                await super().__call__(scope, receive, timed)
        finally:
            if (held := state.get("held")) is not None:
                held.release()


HANDLERS = (
    embeddings.create_embeddings,
    embeddings.create_azure_embeddings,
    rerank.create_ranking,
    cohere.create_embed_1,
    cohere.create_embed_2,
    tei.create_embed,
    tei.create_embed_below,
    tei.create_ranking_below,
    tei.create_similarity,
    tei.create_prediction,
    tei.show_info,
    tei.show_info_below,
    tei.show_health_below,
    ollama.create_embed,
    ollama.create_embedding,
    ollama.list_tags,
    ollama.show_version,
    tokens.tokenize,
    tokens.detokenize,
    tokens.segment,
    tokens.tei_tokenize,
    tokens.tei_decode,
    files.create_file,
    files.list_files,
    files.show_file,
    files.read_file,
    files.delete_file,
    batches.create_batch,
    batches.list_batches,
    batches.show_batch,
    batches.cancel_batch,
    public.list_models,
    public.show_model,
    public.openapi,
    public.health,
    account.show_account,
    account.show_current_key,
    account_calls.show_own_usage,
    account_calls.list_own_calls,
    account_calls.rotate_own_key,
    pages.show_catalogue,
    pages.show_reference,
    pages.show_playground,
    pages.read_asset,
)
"""Every route but the operator's."""


def create_app(services: Services, guard: OperatorGuard, edge: Edge) -> Application:
    """Return the ASGI application."""

    async def written_down(message: Message, scope: Scope) -> None:
        audit.write(services.admin.audit_log, message, scope)

    async def slowed_down(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            await edge.slow_down(Request(scope))

    async def told_to_leave(message: Message, _: Scope) -> None:
        # Who keeps its connection while the server drains would send its next call into its end.
        if message["type"] == "http.response.start" and services.pipeline.draining:
            MutableScopeHeaders.from_message(message)["connection"] = "close"

    async def shared(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            headers = MutableScopeHeaders.from_message(message)
            for name, value in edge.cors.headers(Request(scope)).items():
                headers.extend_header_value(name, value)  # `vary` may name other headers already

    application = Application(
        route_handlers=[*HANDLERS, operator.operator_router(guard)],
        guards=[check_head],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        exception_handlers={
            ClientGone: _client_gone,
            Exception: error_responses.respond,
        },
        before_send=[slowed_down, _complete_headers, told_to_leave, shared, written_down],
        # Our own document is served; Litestar's would load pages from the network.
        openapi_config=None,
        template_config=template_config(),
        # Bodies are bounded where they are read, so that the key is checked first.
        request_max_body_size=None,
        logging_config=None,
    )
    application.edge = edge
    application.answer_seconds_max = services.limits.answer_seconds_max
    application.on_refused = services.paid.refused_at_the_edge
    return application


async def _complete_headers(message: Message, scope: Scope) -> None:
    """Put the request id on every answer, and HEAD beside GET into `allow`."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        headers.setdefault("x-request-id", request_id_of(Request(scope)))
        if "allow" in headers:
            headers["allow"] = ", ".join(sorted(_allowed(scope, headers["allow"])))


def _allowed(scope: Scope, known: str) -> set[str]:
    """Return the methods of the route: Litestar's OPTIONS leaves some out, and HEAD always."""
    methods = {each.strip() for each in known.split(",")}
    for route in scope["litestar_app"].routes:
        if isinstance(route, HTTPRoute) and route.path_format == scope.get("path_template"):
            methods.update(route.methods)
    return methods | {"HEAD"} if "GET" in methods else methods


def _client_gone(_: AnyRequest, __: Exception) -> Response[bytes]:
    return Response(b"", status_code=499)  # nginx's number; no client sees it
