"""Tokens: `POST /v1/tokenize`, `/v1/detokenize` and `/v1/segment`, and TEI's `tokenize`, `decode`.

All of them need a key that may call models, and cost nothing.
"""

from typing import TypeVar

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.routes.model_path import below, path_model
from appliance.api.services import Services
from appliance.wire.tokens import (
    DetokenizeRequest,
    TokenizeRequest,
    detokenize_request,
    segment_request,
    tokenize_request,
)

Sent = TypeVar("Sent", TokenizeRequest, DetokenizeRequest)


@post(["/v1/tokenize", "/tokenize"], status_code=200)
async def tokenize(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show the tokens of texts; free of charge."""
    async with services.paid.admitted(request) as paid:
        sent = tokenize_request(paid.body, services.limits)
        return await paid.answer_free(lambda call: services.tokenizing.tokenize(call, sent))


@post(["/v1/detokenize", "/detokenize", "/decode"], status_code=200)
async def detokenize(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show the texts of tokens; free of charge."""
    async with services.paid.admitted(request) as paid:
        sent = detokenize_request(paid.body, services.limits)
        return await paid.answer_free(lambda call: services.tokenizing.detokenize(call, sent))


@post("/v1/segment", status_code=200)
async def segment(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Cut a text into parts that a model takes whole; free of charge."""
    async with services.paid.admitted(request) as paid:
        sent = segment_request(paid.body, services.limits)
        return await paid.answer_free(lambda call: services.tokenizing.segment(call, sent))


@post(below("/tokenize"), status_code=200)
async def tei_tokenize(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show the tokens of texts as TEI does."""
    return await tei_tokens(request, services, path_model(request))


@post(below("/decode"), status_code=200)
async def tei_decode(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show the texts of tokens as TEI does."""
    return await tei_texts(request, services, path_model(request))


async def tei_tokens(request: AnyRequest, services: Services, model: str) -> Response[bytes]:
    """Answer TEI's `/tokenize` for a model."""
    async with services.paid.admitted(request) as paid:
        sent = of_tei(tokenize_request(paid.body, services.limits), model)
        return await paid.answer_free(lambda call: services.tokenizing.tokenize(call, sent))


async def tei_texts(request: AnyRequest, services: Services, model: str) -> Response[bytes]:
    """Answer TEI's `/decode` for a model."""
    async with services.paid.admitted(request) as paid:
        sent = of_tei(detokenize_request(paid.body, services.limits), model)
        return await paid.answer_free(lambda call: services.tokenizing.detokenize(call, sent))


def of_tei(sent: Sent, model: str) -> Sent:
    """Return a request as TEI's to a model."""
    return msgspec.structs.replace(sent, model=model, is_tei=True)
