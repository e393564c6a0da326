"""Examples: how each client calls this server, with the models that it has."""

from collections.abc import Sequence

from appliance.api.page import address_of
from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.core.errors import InvalidRequest
from appliance.pages.catalogue import TASKS, first_of
from appliance.pages.quickstart import Snippet, snippets
from appliance.pricing.tariff import TaskKind
from appliance.wire.models import ModelView


def examples(request: AnyRequest, services: Services, models: Sequence[ModelView]) -> list[Snippet]:
    """Return an example for each client, at the address that the reader knows this server by."""
    url = address_of(request, services.authenticator.clients)
    embed, rerank = (first_of(models, each, default_of(services, each)) for each in TASKS)
    return snippets(url, embed, rerank)


def default_of(services: Services, task: TaskKind) -> str | None:
    """Return the model that a call without a name has, or None."""
    try:
        return services.pipeline.models.default(task).id
    except InvalidRequest:  # none, or several
        return None
