"""Description: the operator's API as an OpenAPI document.

Owns how the table of verbs becomes one: paths, types and examples are the very ones that the
routes, the command line and the console read, so that it cannot differ from them.
"""

from functools import cache
from typing import Any

import msgspec

from appliance.client import verbs
from appliance.client.verbs import PREFIX, Verb

REF = "#/components/schemas/{name}"
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
            "required": ["code", "message", "type", "param"],
        }
    },
    "required": ["error"],
}
EVENTS = {
    "get": {
        "operationId": "events",
        "summary": "Stats and the log as they come",
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}}
            for name in ("every", "span")
        ],
        "responses": {
            "200": {
                "description": "server-sent events `stats`, `log` and `end`",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            "default": {"$ref": "#/components/responses/Refusal"},
        },
    }
}


@cache
def document(version: str) -> bytes:
    """Return the document as JSON."""
    known = {name.lower(): verb for name, verb in vars(verbs).items() if isinstance(verb, Verb)}
    types = [verb.answer for verb in known.values()]
    types += [verb.order for verb in known.values() if verb.order is not None]
    _, schemas = msgspec.json.schema_components(types, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {f"{PREFIX}/events": EVENTS}
    for name, verb in known.items():
        path = PREFIX + verb.path.format(*["{name}"] * verb.path.count("{}"))
        paths.setdefault(path, {})[verb.method.lower()] = _operation(name, verb)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "gigarouter, the operator's API",
                "version": version,
                "description": "Bearer is `admin.token` in the data directory, or a key with the "
                "scope `admin`; from this machine alone, unless `admin.allow_remote` is set. "
                "Money is decimal credits, each one US dollar.",
            },
            "paths": dict(sorted(paths.items())),
            "security": [{"operator": []}],
            "components": {
                "securitySchemes": {"operator": {"type": "http", "scheme": "bearer"}},
                "responses": {
                    "Refusal": {
                        "description": "an error of the README's table",
                        "content": {"application/json": {"schema": ERROR}},
                    }
                },
                "schemas": _as_written(schemas),
            },
        }
    )


def _operation(name: str, verb: Verb[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": name,
        "summary": name.replace("_", " ").capitalize(),
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
        * verb.path.count("{}")
        + [{"name": each, "in": "query", "schema": {"type": "string"}} for each in verb.query],
        "responses": {
            _success(verb): {
                "description": "done",
                "content": {"application/json": {"schema": _ref(verb.answer)}},
            },
            "default": {"$ref": "#/components/responses/Refusal"},
        },
    }
    if verb.order is not None:
        found["requestBody"] = {
            "content": {"application/json": {"schema": _ref(verb.order)}},
        }
    return found


def _as_written(schema: Any) -> Any:
    """Return a schema in which money is a number: that is how answers are written."""
    if isinstance(schema, list):
        return [_as_written(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        return {**schema, "type": "number"}
    return {name: _as_written(each) for name, each in schema.items()}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": REF.format(name=kind.__name__)}


def _success(verb: Verb[Any]) -> str:
    """Return the statuses of an answer: what makes something says 201 or 202, all others 200."""
    return "2XX" if verb.method == "POST" else "200"
