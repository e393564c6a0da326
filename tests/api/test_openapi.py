"""The OpenAPI document: valid, whole, and no more and no less than the routes that there are."""

import asyncio
import json
import re
from collections import Counter
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from appliance.api.error_responses import TABLE
from appliance.api.openapi import document
from tests.api.contract import resolved
from tests.api.test_authorization import DECLARED, HOLDER, INFER, OPERATORS, PUBLIC, routes
from tests.appliance import bench
from tests.server import EMBED

DOCUMENT = json.loads(document())
OPERATIONS = {
    (method.upper(), path): operation
    for path, told in DOCUMENT["paths"].items()
    for method, operation in resolved(told, DOCUMENT).items()
}
ANY = {"400", "403", "417", "421", "500", "501", "503"}
"""What any request may be answered: its head is wrong, or the server is not well."""
KEYED = {"401", "429"}
PAID = {str(row.status) for row in TABLE.values()} - {"405", "502"}
"""A path with another method is no operation of the document, and the hub is the operator's."""
BODY = {"413", "415"}
TOKENS = ("/v1/tokenize", "/v1/detokenize", "/v1/segment")
SENT = {
    "/v1/tokenize": {"input": "a cat"},
    "/v1/detokenize": {"tokens": [5, 6]},
    "/v1/segment": {"text": "a cat"},
}


def parts(part: Any, at: str = "#"):
    """Yield every part of the document with its place."""
    yield at, part
    if isinstance(part, dict):
        for name, each in part.items():
            yield from parts(each, f"{at}/{name}")
    elif isinstance(part, list):
        for index, each in enumerate(part):
            yield from parts(each, f"{at}/{index}")


def refs():
    return [
        (at, part["$ref"])
        for at, part in parts(DOCUMENT)
        if isinstance(part, dict) and isinstance(part.get("$ref"), str)
    ]


def spelled(path):
    """Return a path with its parameters without names: an id may take one segment or two."""
    plain = re.sub(r"\{[^}]*\}", "{}", path)
    return plain.replace("{}/{}", "{}")


def schema_of(path):
    operation = OPERATIONS["POST", path]
    schema = resolved(operation["requestBody"], DOCUMENT)["content"]["application/json"]["schema"]
    return {**schema, "components": DOCUMENT["components"]}


def headers_of(answer):
    return {name.lower() for name in resolved(answer, DOCUMENT).get("headers", {})}


def test_it_is_valid_openapi_3_1():
    assert DOCUMENT["openapi"].startswith("3.1.")
    Draft202012Validator.check_schema(OPENAPI_31)
    assert [each.message for each in Draft202012Validator(OPENAPI_31).iter_errors(DOCUMENT)] == []
    wrong = {**DOCUMENT, "paths": {"/x": {"get": {"responses": {"200": {}}}}}}
    assert not Draft202012Validator(OPENAPI_31).is_valid(wrong)


def test_every_schema_is_one():
    schemas = [
        part["schema"]
        for _, part in parts(DOCUMENT)
        if isinstance(part, dict) and isinstance(part.get("schema"), dict)
    ]
    assert len(schemas) > 50
    for schema in (*schemas, *DOCUMENT["components"]["schemas"].values()):
        Draft202012Validator.check_schema(schema)
        assert "nullable" not in json.dumps(schema), "OpenAPI 3.0's; 3.1 would not look at it"


def test_every_reference_leads_to_something_and_every_component_is_used():
    assert len(refs()) > 100
    for at, ref in refs():
        assert ref.startswith("#/"), at
        assert resolved({"$ref": ref}, DOCUMENT), at
    named = {ref for _, ref in refs()}
    for kind, members in DOCUMENT["components"].items():
        if kind == "securitySchemes":
            continue
        for name in members:
            assert f"#/components/{kind}/{name}" in named, f"{kind}/{name} is used by nobody"


def test_what_is_said_twice_is_a_component():
    large = [
        json.dumps(part)
        for at, part in parts({k: v for k, v in DOCUMENT.items() if k == "paths"})
        if isinstance(part, dict) and "type" in part and "properties" in part
    ]
    assert [text[:80] for text, count in Counter(large).items() if count > 1] == []


def test_links_lead_to_operations():
    links = [
        part["operationRef"]
        for _, part in parts(DOCUMENT)
        if isinstance(part, dict) and "operationRef" in part
    ]
    assert links
    for link in links:
        assert resolved({"$ref": link}, DOCUMENT)["responses"], link


def test_it_has_every_route_and_no_other(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            return routes(on.appliance.app)

    served = {
        (method, spelled(path))
        for method, path in asyncio.run(story())
        if not path.startswith(OPERATORS)
    }
    assert {(method, spelled(path)) for method, path in OPERATIONS} == served


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=" ".join)
def test_each_operation_states_its_errors_headers_and_who_may_call_it(method, path):
    operation = OPERATIONS[method, path]
    audience = {(verb, spelled(route)): who for (verb, route), who in DECLARED.items()}[
        method, spelled(path)
    ]
    told = set(operation["responses"])
    assert operation["summary"]
    assert told >= ANY
    assert (operation.get("security") == []) == (audience not in (INFER, HOLDER))
    if audience in (INFER, HOLDER):
        assert told >= KEYED
    if audience == PUBLIC:
        assert not told & KEYED
    if "requestBody" in operation:
        assert told >= BODY
    if "{" in path:
        assert "404" in told
    success = next(each for name, each in operation["responses"].items() if name[0] == "2")
    assert "x-request-id" in headers_of(success)
    if "x-balance" in headers_of(success):
        assert told >= PAID
    for status, answer in operation["responses"].items():
        headers = headers_of(answer)
        if status[0] != "2":
            assert set(resolved(answer, DOCUMENT)["content"]) == {"application/json"}
        if status in ("429", "503"):
            assert "retry-after" in headers
        if status == "401":
            assert "www-authenticate" in headers


def test_what_an_answer_carries_is_stated(tmp_path):
    """Every header and status of real answers, a call of each kind."""

    async def story():
        async with bench(tmp_path / "data") as on:
            auth = await on.key(rpm=100, tpm=100_000)
            calls = {
                "/v1/embeddings": {"model": EMBED, "input": "a"},
                "/v1/tokenize": {"model": EMBED, "input": "a"},
                "/v1/segment": {"model": EMBED, "text": "a"},
                "/api/embed": {"model": EMBED, "input": "a"},
                "/embed": {"inputs": "a"},
            }
            posted = [
                ("POST", path, await on.client.post(path, json=sent, headers=key))
                for path, body in calls.items()
                for sent, key in ((body, auth), ({}, auth), (body, {}))
            ]
            looked_up = [
                ("GET", path, await on.client.get(path, headers=auth))
                for path in ("/v1/models", "/account", "/v1/files", "/v1/batches", "/metrics")
            ]
            return posted + looked_up

    transport = {"content-type", "content-length"}
    for method, path, answer in asyncio.run(story()):
        told = OPERATIONS[method, path]["responses"][str(answer.status_code)]
        assert set(answer.headers) - transport <= headers_of(told), f"{path} {answer.status_code}"


@pytest.mark.parametrize("path", TOKENS)
def test_whether_a_model_must_be_named_is_said_as_it_is(tmp_path, path):
    async def story():
        async with bench(tmp_path / "data") as on:
            auth = await on.key()
            named = {**SENT[path], "model": EMBED}
            assert (await on.client.post(path, json=named, headers=auth)).status_code == 200
            return (await on.client.post(path, json=SENT[path], headers=auth)).status_code

    validator = Draft202012Validator(schema_of(path))
    assert validator.is_valid({**SENT[path], "model": EMBED})
    assert validator.is_valid(SENT[path]) == (asyncio.run(story()) == 200)
