"""Pages: what this server shows to people, and the files that its pages load."""

import asyncio

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from appliance.api.error_responses import VALID_PATHS
from appliance.api.examples import default_of, examples
from appliance.api.page import (
    answer_asset,
    answer_page,
    assets,
    is_wanted,
    require_wanted,
)
from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.core.errors import UnknownPath
from appliance.pages.catalogue import TASKS, Wish, first_of, rows


@get("/")
async def show_catalogue(
    request: AnyRequest,
    services: NamedDependency[Services],
    q: FromQuery[str | None] = None,
    task: FromQuery[str | None] = None,
    here: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Show the models to people; say to programs that this server is there, as Ollama's ask."""
    if not is_wanted(request):
        return Response(
            b"gigarouter is running",
            status_code=200,
            media_type="text/plain",
            headers={"vary": "accept"},
        )
    models = (await services.admin.models.all()).data
    wish = Wish.of(q, task, here)
    return answer_page(
        request,
        services.authenticator.clients,
        "catalogue.html",
        rows=rows(models, wish),
        total=len(models),
        wish=wish,
        tasks=TASKS,
        snippets=examples(request, services, models),
    )


@get("/docs", sync_to_thread=False)
def show_reference(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show the API's reference to people, with forms that call it."""
    require_wanted(request)
    # Swagger UI makes elements from text that it has cleaned, and pictures of its own.
    return answer_page(request, services.authenticator.clients, "docs.html", writes_html=True)


@get("/playground")
async def show_playground(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show a page on which people try models with a key of their own."""
    require_wanted(request)
    models = (await services.admin.models.all()).data
    choices = {
        task: [row.model.id for row in rows(models, Wish(task=task, here=True))] for task in TASKS
    }
    defaults = {task: first_of(models, task, default_of(services, task)) for task in TASKS}
    return answer_page(
        request,
        services.authenticator.clients,
        "playground.html",
        choices=choices,
        defaults=defaults,
    )


@get("/static/{name:str}")
async def read_asset(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    """Hand out a file of the pages; its name holds a hash of its content."""
    asset = assets().find(name)
    if asset is None:
        raise UnknownPath(path=request.scope["path"][:200], valid=VALID_PATHS)
    await asyncio.to_thread(lambda: asset.packed)  # compressed once, and not on the loop's thread
    return answer_asset(request, asset)
