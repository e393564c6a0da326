"""TEI: Hugging Face's text-embeddings-inference, whose answers are bare lists.

`POST /embed` and, as its clients also call it, `POST /`. A server of TEI has one model: its clients
name none, and the default model of the task is meant, or the one in the path.
"""

from typing import Any

import msgspec

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.shapes.rows import json_list
from appliance.tasks.embed import Embedded, EmbedTask
from appliance.tasks.rerank import Ranked, RerankTask
from appliance.wire.inputs import inputs_of
from appliance.wire.json import decode, decode_leniently, is_given
from appliance.wire.models import ModelView
from appliance.wire.questions import (
    Count,
    EmbeddingsRequest,
    ModelName,
    RerankRequest,
    Word,
    cut_of,
    kind_of,
    split_model,
)
from appliance.wire.texts import require_count, require_text, require_texts, texts_of

LABEL = "LABEL_0"
"""Of a reranker's one score, as transformers names it."""


class EmbedBody(msgspec.Struct):
    """The body as sent."""

    inputs: msgspec.Raw = msgspec.Raw()
    model: ModelName | None = None
    """Not TEI's own; for whoever has several."""
    truncate: bool | Word | None = None
    truncation_direction: Word | None = None
    normalize: bool | None = None
    dimensions: Count | None = None
    prompt_name: Word | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    """Hugging Face's pipelines put the other fields in here."""


class TextsOrInputs(msgspec.Struct):
    """What tells the body of a Cohere client, whose base URL has no version, from one of TEI's."""

    texts: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()


def is_of_cohere(body: bytes) -> bool:
    """Say whether a body has `texts` and no `inputs`.

    Raises:
        InvalidRequest: it is no JSON.
    """
    if b'"texts"' not in body:
        return False
    sent = decode_leniently(body, TextsOrInputs)
    return is_given(sent.texts) and not is_given(sent.inputs)


class SimilarityBody(msgspec.Struct):
    """The body of `/similarity` as sent."""

    inputs: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()


class Sentences(msgspec.Struct):
    """Its `inputs`."""

    source_sentence: str
    sentences: msgspec.Raw


class SimilarityParameters(msgspec.Struct):
    """Its `parameters`."""

    truncate: bool | Word | None = None
    truncation_direction: Word | None = None
    prompt_name: Word | None = None


class PredictBody(msgspec.Struct):
    """The body of `/predict` as sent."""

    inputs: msgspec.Raw = msgspec.Raw()
    raw_scores: bool | None = None
    truncate: bool | Word | None = None
    truncation_direction: Word | None = None


def is_similarity(body: bytes) -> bool:
    """Say whether `inputs` is an object: Hugging Face's clients ask so at a model's own URL.

    Raises:
        InvalidRequest: it is no JSON.
    """
    if b'"source_sentence"' not in body:
        return False
    return bytes(decode_leniently(body, TextsOrInputs).inputs).lstrip().startswith(b"{")


def similarity_task(body: bytes, limits: Limits, *, model: str | None = None) -> EmbedTask:
    """Return the question how near sentences are to one; `model` is one that the path names.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode_leniently(body, SimilarityBody)
    if not is_given(sent.inputs):
        raise InvalidRequest("inputs is missing", param="inputs")
    asked = decode(sent.inputs, Sentences, param="inputs")
    require_text(asked.source_sentence, limits, param="inputs")
    texts = texts_of(asked.sentences, limits, param="inputs")
    all_texts = [asked.source_sentence, *texts]
    require_texts(all_texts, limits, param="inputs")
    said = SimilarityParameters()
    if is_given(sent.parameters):
        said = decode_leniently(sent.parameters, SimilarityParameters)
    name, kind = split_model(model)
    question = EmbeddingsRequest(
        model=name,
        texts=all_texts,
        param="inputs",
        cut=cut_of(said.truncate, direction=said.truncation_direction),
        input_type=kind_of(said.prompt_name, param="prompt_name") if said.prompt_name else kind,
    )
    shape = f"tei similarity {model}" if model else "tei similarity"
    return EmbedTask(question, write=similarities, shape=shape)


def similarities(found: Embedded) -> bytes:
    """Return the cosine of the first text with each of the others."""
    return msgspec.json.encode((found.rows[1:] @ found.rows[0]).tolist())


def predict_task(body: bytes, limits: Limits, *, model: str | None = None) -> RerankTask:
    """Return the question which scores a reranker gives pairs of texts.

    Raises:
        InvalidRequest: the body is wrong, or has no pairs, or pairs with several first texts;
            `param` names the field.
    """
    sent = decode_leniently(body, PredictBody)
    pairs, is_single = _pairs(sent.inputs, limits)
    queries = {query for query, _ in pairs}
    if len(queries) != 1:
        raise InvalidRequest(
            "inputs: the pairs of one call begin with the same text; send a call for each",
            param="inputs",
        )
    documents = [document for _, document in pairs]
    require_texts([pairs[0][0], *documents], limits, param="inputs")
    cut = cut_of(sent.truncate, direction=sent.truncation_direction)
    if cut == "start":
        raise InvalidRequest("pairs are cut at their end alone", param="truncation_direction")
    question = RerankRequest(
        model=model,
        query=pairs[0][0],
        documents=documents,
        param="inputs",
        raw_scores=bool(sent.raw_scores),
        truncate=cut == "end",
    )

    def write(found: Ranked) -> bytes:
        each = [[{"score": score, "label": LABEL}] for _, score in sorted(found.order)]
        return msgspec.json.encode(each[0] if is_single else each)

    shape = f"tei predict {model}" if model else "tei predict"
    return RerankTask(question, write=write, shape=shape)


def _pairs(raw: msgspec.Raw, limits: Limits) -> tuple[list[tuple[str, str]], bool]:
    """Return pairs of texts, and whether one was sent by itself."""
    body = bytes(raw).lstrip()
    if not body.startswith(b"["):
        raise InvalidRequest(
            "inputs is a pair of texts, or a list of pairs: rerankers score pairs, and models "
            "that classify single texts are not served here",
            param="inputs",
        )
    if not body[1:].lstrip().startswith(b"["):
        return [decode(body, tuple[str, str], param="inputs")], True
    require_count(body, limits, param="inputs", each=2)
    return decode(body, list[tuple[str, str]], param="inputs"), False


def embed_task(body: bytes, limits: Limits, *, model: str | None = None) -> EmbedTask:
    """Return what a body asks; `model` is one that the path names.

    Raises:
        InvalidRequest: the body is wrong; `param` names the field.
    """
    sent = decode_leniently(body, EmbedBody)
    if is_given(sent.parameters) and bytes(sent.parameters).split() not in ([b"{}"], [b"{", b"}"]):
        raise InvalidRequest("parameters: put these fields beside inputs", param="parameters")
    name, said = split_model(model or sent.model)
    inputs = inputs_of(sent.inputs, limits, param="inputs")
    question = EmbeddingsRequest(
        model=name,
        texts=inputs.texts,
        token_ids=inputs.token_ids,
        is_single=inputs.is_single,
        param="inputs",
        dimensions=sent.dimensions,
        cut=cut_of(sent.truncate, direction=sent.truncation_direction),
        input_type=kind_of(sent.prompt_name, param="prompt_name") if sent.prompt_name else said,
        normalize=sent.normalize is not False,
    )
    return EmbedTask(question, write=vectors, shape=f"tei {model}" if model else "tei")


def vectors(found: Embedded) -> bytes:
    """Return the list of vectors."""
    return json_list(found, "float")


def info(view: ModelView, *, pooling: str, version: str, inputs_max: int) -> dict[str, Any]:
    """Return what `GET /info` says of a model."""
    kind = "embedding" if view.task == "embeddings" else "reranker"
    return {
        "model_id": view.id,
        "model_sha": None,
        "model_dtype": view.quantization.lower() or "float16",
        "model_type": {kind: {"pooling": pooling} if kind == "embedding" else {}},
        "max_input_length": view.max_input_tokens,
        "max_client_batch_size": inputs_max,
        "auto_truncate": True,
        "version": version,
    }
