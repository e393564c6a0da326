"""Ollama: its embedding routes, `POST /api/embed` and the older `POST /api/embeddings`."""

from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from appliance.core.clock import iso
from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.shapes.rows import json_list
from appliance.tasks.embed import Embedded, EmbedTask
from appliance.wire.json import decode_leniently
from appliance.wire.models import ModelView
from appliance.wire.questions import Count, EmbeddingsRequest, ModelName, cut_of, split_model
from appliance.wire.texts import embedding_inputs, require_text

US_PER_S = 1_000_000
TAG = ":latest"
"""What Ollama's clients put behind a name without a tag."""


class EmbedBody(msgspec.Struct):
    """`POST /api/embed` as sent."""

    model: ModelName | None = None
    input: msgspec.Raw = msgspec.Raw()
    truncate: bool | None = None
    dimensions: Count | None = None


class OlderBody(msgspec.Struct):
    """`POST /api/embeddings` as sent."""

    model: ModelName | None = None
    prompt: str | None = None


def embed_task(body: bytes, limits: Limits, *, elapsed_ns: Callable[[], int]) -> EmbedTask:
    """Return what a body asks; `elapsed_ns` says since when the call has been here.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
        TokenInputUnsupported: `input` holds token ids.
    """
    sent = decode_leniently(body, EmbedBody)
    name, kind = split_model(_untagged(sent.model))
    question = EmbeddingsRequest(
        model=name,
        texts=embedding_inputs(sent.input, limits, param="input"),
        dimensions=sent.dimensions,
        cut=cut_of(sent.truncate),
        input_type=kind,
    )

    def write(found: Embedded) -> bytes:
        return _several(found, elapsed_ns())

    return EmbedTask(question, write=write, shape="ollama")


def older_task(body: bytes, limits: Limits) -> EmbedTask:
    """Return what a body of the older route asks.

    Raises:
        InvalidRequest, TokenInputUnsupported: as for the newer one.
    """
    sent = decode_leniently(body, OlderBody)
    name, kind = split_model(_untagged(sent.model))
    if sent.prompt is None:
        raise InvalidRequest("prompt is missing; it is a string", param="prompt")
    require_text(sent.prompt, limits, param="prompt")
    question = EmbeddingsRequest(model=name, texts=[sent.prompt], param="prompt", input_type=kind)
    return EmbedTask(question, write=_one, shape="ollama older")


def _untagged(model: str | None) -> str | None:
    return model.removesuffix(TAG) if model else model


def _several(found: Embedded, total_ns: int) -> bytes:
    rest = orjson.dumps(
        {
            "model": found.spec.id,
            "total_duration": total_ns,
            "load_duration": 0,
            "prompt_eval_count": found.plan.tokens,
        }
    )
    return b'{"embeddings":' + json_list(found, "float") + b"," + rest[1:]


def _one(found: Embedded) -> bytes:
    return b'{"embedding":' + json_list(found, "float")[1:-1] + b"}"


def tags(views: list[ModelView]) -> dict[str, Any]:
    """Return `GET /api/tags`: the models on this machine, each by all of its names."""
    return {
        "models": [
            _tag(view, name)
            for view in views
            if view.available
            for name in (view.id, *view.aliases, *(alias + TAG for alias in view.aliases))
        ]
    }


def _tag(view: ModelView, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": iso(view.created * US_PER_S),
        "size": view.size_bytes or 0,
        "digest": "",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": view.task,
            "families": [view.task],
            "parameter_size": str(view.params),
            "quantization_level": view.quantization,
        },
    }
