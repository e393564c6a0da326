"""Endpoints: what a line of a batch may ask for.

Owns the table from a path to the task of a body. Another endpoint is one line here.
"""

from collections.abc import Callable

from appliance.core.limits import Limits
from appliance.shapes import openai
from appliance.shapes.rerank import rerank_task
from appliance.tasks.task import Task

TaskOf = Callable[[bytes, Limits, str], Task]
"""Of a body, the bounds and the request's id; raises what the endpoint itself refuses."""

TASKS: dict[str, TaskOf] = {
    "/v1/embeddings": lambda body, limits, _: openai.embed_task(body, limits),
    "/v1/rerank": lambda body, limits, request_id: rerank_task(body, limits, request_id=request_id),
}
