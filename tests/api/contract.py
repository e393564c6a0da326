"""Contract: holds every answer to the published description of the hosted service.

Owns the reading of `tests/golden/contract.json` and the rules that it does not spell out: every
field that it names is there, and an error has exactly our shape.
"""

import base64
import json
import math
import re
import struct
from functools import cache
from typing import Any, TypeVar

import httpx2
from jsonschema import Draft202012Validator

from tests.server import ROOT

Json = dict[str, Any]
Client = TypeVar("Client", httpx2.Client, httpx2.AsyncClient)

CONTRACT: Json = json.loads((ROOT / "tests/golden/contract.json").read_text())
EMBEDDINGS_PATHS = ("/v1/embeddings", "/embeddings", "/openai/v1/embeddings")
RERANK_PATHS = (
    "/v1/rerank",
    "/rerank",
    "/v2/rerank",
    "/v1/reranking",
    "/reranking",
    "/v1/v1/rerank",
    "/v1/v2/rerank",
)
_PUBLISHED = dict.fromkeys(EMBEDDINGS_PATHS, "/v1/embeddings")
_PUBLISHED |= dict.fromkeys(RERANK_PATHS, "/v1/rerank")
_PUBLISHED["/v1/models"] = "/v1/models"

PROSE = {"description", "summary", "title", "openapi", "info"}
"""Keys of an OpenAPI document that say something to people only."""


def watch(client: Client) -> Client:
    """Return the client, which from now on checks every answer that it gets."""
    if isinstance(client, httpx2.AsyncClient):
        client.event_hooks["response"].append(_read_and_check)
    else:
        client.event_hooks["response"].append(_check_read)
    return client


def check(answer: httpx2.Response) -> None:
    """Assert that an answer is one that the contract, and the surface's own rules, allow."""
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    path = answer.request.url.path.rstrip("/")
    document = json.loads(answer.content)
    if answer.status_code < 400:
        published = CONTRACT["paths"].get(_PUBLISHED.get(path))
        if published is not None:
            responses = published[answer.request.method.lower()]["responses"]
            assert str(answer.status_code) in responses
            _check_success(document, responses[str(answer.status_code)])
    elif path != "/health":  # says how it is, and 503 is how it says so
        _check_error(answer, document)


def _check_read(answer: httpx2.Response) -> None:
    answer.read()
    check(answer)


async def _read_and_check(answer: httpx2.Response) -> None:
    await answer.aread()
    check(answer)


def _check_success(document: Json, response: Json) -> None:
    schema = response["content"]["application/json"]["schema"]
    if document.get("object") == "dry_run":  # answers what it would cost, and no data
        _validator(json.dumps(schema)).validate(document)
        return
    if isinstance(document.get("data"), list):
        document = {**document, "data": [_with_numbers(item) for item in document["data"]]}
    _validator(json.dumps(_with_every_field(schema))).validate(document)


def _with_numbers(item: Json) -> Json:
    """Check a vector's numbers here: jsonschema takes ten microseconds for each of them."""
    vector = item.get("embedding")
    if vector is None:
        return item
    numbers = floats(vector) if isinstance(vector, str) else vector
    assert all(type(number) in (float, int) and math.isfinite(number) for number in numbers)
    return {**item, "embedding": numbers[:1]}


def _check_error(answer: httpx2.Response, document: Json) -> None:
    _validator(json.dumps(_with_every_field(_error_schema()))).validate(document)
    assert set(document) == {"error", "detail", "message"}
    error = document["error"]
    assert set(error) - {"retry_after_s"} == {"code", "message", "type", "param"}
    assert re.fullmatch(r"[a-z_]+", error["code"])
    assert error["message"]
    assert error["message"] == document["detail"] == document["message"]
    assert error["type"]
    assert error["param"] is None or (isinstance(error["param"], str) and error["param"])
    assert answer.headers["x-request-id"]
    assert "x-cost" not in answer.headers, "a refusal says nothing of a charge"
    assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
    assert ("retry_after_s" in error) == ("retry-after" in answer.headers)
    if "retry_after_s" in error:
        assert answer.headers["retry-after"] == str(error["retry_after_s"])
        assert type(error["retry_after_s"]) is int
        assert error["retry_after_s"] >= 1
    assert (answer.headers.get("www-authenticate") == "Bearer") == (answer.status_code == 401)


def _error_schema() -> Json:
    """The contract gives one shape to all of its errors; it holds for those it does not list."""
    responses = CONTRACT["paths"]["/v1/embeddings"]["post"]["responses"]
    schemas = [
        responses[status]["content"]["application/json"]["schema"]
        for status in ("401", "402", "404", "429", "503")
    ]
    assert all(schema == schemas[0] for schema in schemas)
    return schemas[0]


@cache
def _validator(schema: str) -> Draft202012Validator:
    # Of OpenAPI 3.0.3's departures from JSON Schema the contract uses none ("nullable", "example"
    # and boolean "exclusiveMinimum"), so its schemas mean the same in both.
    assert not re.search(r'"(nullable|exclusiveM\w+|\$ref)"', schema)
    Draft202012Validator.check_schema(json.loads(schema))
    return Draft202012Validator(json.loads(schema))


def _with_every_field(schema: Json) -> Json:
    """Require what the contract names: it has no `required` in answers, so `{}` would pass."""
    found = dict(schema)
    if "properties" in schema:
        found["properties"] = {k: _with_every_field(v) for k, v in schema["properties"].items()}
        found["required"] = sorted(set(schema["properties"]) - {"retry_after_s"})
    if "items" in schema:
        found["items"] = _with_every_field(schema["items"])
    return found


def floats(text: str) -> list[float]:
    """Return the numbers of a base64 vector as the SDKs do: little-endian float32."""
    raw = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


# -- one document inside another ----------------------------------------------------------------


def missing(published: Any, ours: Any, document: Json, at: str = "$") -> list[str]:
    """Return where `ours`, a part of the OpenAPI `document`, lacks something that is `published`.

    Whatever the contract allows to send must be allowed, and whatever it promises be promised;
    `ours` may say more. Words for people and the servers' addresses are not compared.
    """
    ours = resolved(ours, document)
    may_vary = isinstance(published, dict) and "oneOf" not in published
    if may_vary and isinstance(ours, dict) and "oneOf" in ours:
        # One of several is what is published; which of them comes, the request says.
        tried = [missing(published, each, document, at) for each in ours["oneOf"]]
        return min(tried, key=len)
    if isinstance(published, dict):
        if not isinstance(ours, dict):
            return [f"{at}: is {ours!r:.60}"]
        found = []
        for key, value in published.items():
            if key in PROSE and not isinstance(value, dict):
                continue
            if key not in ours:
                found.append(f"{at}.{key}: is missing")
            elif key == "required":
                found += [f"{at}.{key}: asks for {x}" for x in sorted({*ours[key]} - {*value})]
            elif key != "servers":
                found += missing(value, ours[key], document, f"{at}.{key}")
        return found
    if isinstance(published, list) and isinstance(ours, list):
        return [
            f"{at}: lacks {each!r}"
            for each in published
            if all(missing(each, other, document) for other in ours)
        ]
    return [] if published == ours else [f"{at}: is {ours!r:.60}, not {published!r:.60}"]


def resolved(part: Any, document: Json) -> Any:
    """Return a part of a document, or what it refers to."""
    while isinstance(part, dict) and "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name.replace("~1", "/").replace("~0", "~")]
        part = found
    return part
