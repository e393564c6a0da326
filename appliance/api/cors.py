"""CORS: which pages of other origins may call this server from a browser (Fetch, section 3.2).

None may unless the operator names its origin; a key is needed all the same, and the operator's own
API is for no page.
"""

from collections.abc import Collection

from litestar.types import Send

from appliance.api.request import AnyRequest

OPERATORS = ("/admin", "/metrics")
"""Whom no page may call, whatever its origin."""
METHODS = "GET, POST, DELETE, OPTIONS"
MAX_AGE_S = 600
"""How long a browser need not ask again."""


class Cors:
    """The origins of one server's settings."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.casefold() for origin in origins)

    def allows(self, request: AnyRequest) -> bool:
        """Say whether the request is of a page that may send it."""
        origin = request.headers.get("origin")
        return (
            origin is not None
            and origin.casefold() in self._origins
            and not request.scope["path"].startswith(OPERATORS)
        )

    def is_preflight(self, request: AnyRequest) -> bool:
        """Say whether a browser only asks what such a page may send."""
        return str(request.method) == "OPTIONS" and (
            "access-control-request-method" in request.headers
        )

    def headers(self, request: AnyRequest) -> dict[str, str]:
        """Return what lets a browser hand the answer to its page.

        Other requests are told no more than that it depends on `Origin`, where it does: a cache
        must not hand their answers to such a page, nor its answers to others.
        """
        if not self._origins or request.scope["path"].startswith(OPERATORS):
            return {}
        if not self.allows(request):
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": request.headers["origin"],
            "access-control-expose-headers": "*",
            "vary": "origin",
        }

    async def answer_preflight(self, request: AnyRequest, send: Send) -> None:
        """Answer 204: which methods and headers a page may send."""
        headers = {
            **self.headers(request),
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": request.headers.get(
                "access-control-request-headers", "*"
            ),
            "access-control-max-age": str(MAX_AGE_S),
        }
        await send(
            {
                "type": "http.response.start",
                "status": 204,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": b"", "more_body": False})
