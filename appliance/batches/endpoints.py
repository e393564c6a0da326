"""Endpoints: what a line of a batch may ask for.

Owns the table from a path to the task of a body. Another endpoint is one line here.
"""

from collections.abc import Callable

from appliance.core.limits import Limits
from appliance.tasks.embed import EmbedTask
from appliance.tasks.rerank import RerankTask
from appliance.tasks.task import Task
from appliance.wire.bodies import embeddings_request, rerank_request

TaskOf = Callable[[bytes, Limits, str], Task]
"""Of a body, the bounds and the request's id; raises what the endpoint itself refuses."""

TASKS: dict[str, TaskOf] = {
    "/v1/embeddings": lambda body, limits, _: EmbedTask(embeddings_request(body, limits)),
    "/v1/rerank": lambda body, limits, request_id: RerankTask(
        rerank_request(body, limits), request_id, is_cohere=False
    ),
}
