import asyncio
import json
import re

from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from appliance.admin.description import document
from appliance.client import verbs
from tests.api.test_authorization import OPERATORS, routes
from tests.appliance import bench
from tests.server import EMBED

DOCUMENT = json.loads(document("1.2.3"))


def spelled(path):
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


def test_it_is_valid_openapi_and_every_schema_is_one():
    assert [each.message for each in Draft202012Validator(OPENAPI_31).iter_errors(DOCUMENT)] == []
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert named <= set(DOCUMENT["components"]["schemas"])
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_it_has_every_route_of_the_operators_and_no_other(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            return routes(on.appliance.app)

    served = {
        (method, spelled(path))
        for method, path in asyncio.run(story())
        if path.startswith(OPERATORS) and not path.endswith("/openapi.json")
    }
    described = {
        (method.upper(), spelled(path))
        for path, item in DOCUMENT["paths"].items()
        for method in item
    }
    assert described == served


def test_real_answers_and_orders_are_as_described(tmp_path):
    def schema(verb, part):
        path = verbs.PREFIX + verb.path.format("{name}")
        operation = DOCUMENT["paths"][path][verb.method.lower()]
        found = operation["requestBody"] if part == "order" else operation["responses"]["2XX"]
        wanted = found["content"]["application/json"]["schema"]
        return Draft202012Validator({**wanted, "components": DOCUMENT["components"]})

    async def story():
        async with bench(tmp_path / "data") as on:
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            order = {"name": "a", "credit": "1", "rpm": 5}
            minted = await on.client.post("/admin/v1/keys", json=order, headers=token)
            loaded = await on.client.post(
                "/admin/v1/engines/load", json={"id": EMBED}, headers=token
            )
            described = await on.client.get("/admin/v1/openapi.json", headers=token)
            return order, minted.json(), loaded.json(), described.json()

    order, minted, loaded, described = asyncio.run(story())
    schema(verbs.MINT, "order").validate(order)
    assert not schema(verbs.MINT, "order").is_valid({"credit": "1"})
    schema(verbs.MINT, "answer").validate(minted)
    schema(verbs.LOAD_MODEL, "answer").validate(loaded)
    assert described["paths"] == DOCUMENT["paths"]
