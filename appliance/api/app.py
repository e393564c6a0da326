"""App: every route, and what they are given.

Owns the list of routes and the wiring of Litestar.
"""

from litestar import Litestar, Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.di import Provide
from litestar.types import Message, Scope

from appliance.api import error_responses
from appliance.api.disconnect import ClientGone
from appliance.api.guard import OperatorGuard
from appliance.api.request import AnyRequest, request_id_of
from appliance.api.routes import account, embeddings, operator, public, rerank
from appliance.api.services import Services


def create_app(services: Services, guard: OperatorGuard) -> Litestar:
    """Return the ASGI application."""
    return Litestar(
        route_handlers=[
            embeddings.create_embeddings,
            rerank.create_ranking,
            public.list_models,
            public.show_model,
            public.probe,
            public.openapi,
            public.health,
            account.show_account,
            account.show_current_key,
            operator.operator_router(guard),
        ],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        exception_handlers={
            ClientGone: _nobody_reads,
            Exception: error_responses.respond,
        },
        before_send=[_label],
        # Our own document is served; Litestar's would load pages from the network.
        openapi_config=None,
        # Bodies are bounded where they are read, so that the key is checked first.
        request_max_body_size=None,
        logging_config=None,
    )


async def _label(message: Message, scope: Scope) -> None:
    """Put the request id on every answer, whoever made it."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        headers.setdefault("x-request-id", request_id_of(Request(scope)))


def _nobody_reads(_: AnyRequest, __: Exception) -> Response[bytes]:
    return Response(b"", status_code=499)  # nginx's number; no client sees it
