"""Answers: from matrices to bodies.

Owns the JSON of the two paid endpoints. Vectors go from the matrix to text without a Python object
for each number.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from appliance.catalog.spec import ModelSpec
from appliance.core.units import ceil_div
from appliance.engine import vectors
from appliance.engine.vectors import Matrix
from appliance.tasks.embedding import Plan
from appliance.tasks.rerank import ranking
from appliance.wire.bodies import EmbeddingsRequest, RerankRequest

COHERE_SEARCH_UNIT = 100
"""Documents in one of Cohere's billed search units."""
SLICE_ROWS = 32
"""orjson keeps the GIL: a large answer is written in slices, between which others get it."""


def embeddings(matrix: Matrix, *, sent: EmbeddingsRequest, spec: ModelSpec, plan: Plan) -> bytes:
    """Return the body of an embeddings answer: unit vectors in the order of the texts."""
    rows = vectors.l2_normalise(matrix)
    if sent.dimensions is not None and sent.dimensions != rows.shape[1]:
        rows = vectors.truncate_dimensions(rows, sent.dimensions)
    rows = np.ascontiguousarray(rows)
    parts = [
        _embeddings(rows[first : first + SLICE_ROWS], first, base64=sent.base64)
        for first in range(0, len(rows), SLICE_ROWS)
    ]
    rest = orjson.dumps({"model": spec.id, "usage": usage(plan)})
    return b'{"object":"list","data":[' + b",".join(parts) + b"]," + rest[1:]


def _embeddings(rows: Matrix, first: int, *, base64: bool) -> bytes:
    """Return members of the list, without its brackets."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vectors.to_base64(row) if base64 else row,
        }
        for index, row in enumerate(rows, first)
    ]
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def rerank(
    matrix: Matrix,
    *,
    sent: RerankRequest,
    spec: ModelSpec,
    plan: Plan,
    request_id: str,
    is_cohere: bool,
) -> bytes:
    """Return the body of a rerank answer: best first, ties in the order of the documents."""
    results: list[dict[str, Any]] = []
    for index, score in ranking(scores(matrix, sent=sent, spec=spec), sent.top_n):
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if sent.return_documents:
            result["document"] = {"text": sent.documents[index]}
        results.append(result)
    document: dict[str, Any] = {
        "id": request_id,
        "object": "list",
        "model": spec.id,
        "results": results,
        "usage": usage(plan),
    }
    if is_cohere:
        units = ceil_div(len(sent.documents), COHERE_SEARCH_UNIT)
        document["meta"] = {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": units},
        }
    return msgspec.json.encode(document)


def scores(
    matrix: Matrix, *, sent: RerankRequest, spec: ModelSpec
) -> npt.NDArray[np.floating[Any]]:
    """Return one absolute score for each document, 0..1 unless raw ones were asked for."""
    if spec.entry.scores == "cosine":
        cosine = vectors.cosine_to_first(matrix)
        return cosine if sent.raw_scores else np.clip(cosine, 0, 1)
    head = matrix[:, 0]
    if sent.raw_scores or spec.entry.scores == "as-is":
        return head
    return vectors.sigmoid(head)


def usage(plan: Plan) -> dict[str, int]:
    """Return the tokens that were computed, and how many texts were cut if any was."""
    counted = {"prompt_tokens": plan.tokens, "total_tokens": plan.tokens}
    if plan.truncated:
        counted["truncated"] = plan.truncated
    return counted
