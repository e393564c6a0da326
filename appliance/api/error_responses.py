"""Error responses: from an error to a status, a body and headers.

Owns the error table, which is the only place with HTTP statuses of errors.
"""

import logging
from dataclasses import dataclass
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException

from appliance.api.disconnect import ClientGone
from appliance.api.request import noted_headers
from appliance.core import errors
from appliance.wire.json import encode

log = logging.getLogger("gigarouter.api")

VALID_PATHS = (
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/segment",
    "/v1/files",
    "/v1/files/{id}",
    "/v1/files/{id}/content",
    "/v1/batches",
    "/v1/batches/{id}",
    "/v1/batches/{id}/cancel",
    "/v1/models",
    "/v1/models/{id}",
    "/v1/openapi.json",
    "/v1/key",
    "/account",
    "/health",
)

OLLAMA = "/api/"
"""Below it an error is a text, which Ollama's clients print."""
TEI = "/tei/"
TEI_AT_THE_ROOT = {"/", "/embed", "/info", "/decode", "/similarity", "/predict"}
"""TEI's clients print `error` as a text too."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the error table."""

    status: int
    kind: str
    """OpenAI's `type`."""
    should_retry: bool | None = None
    """The header `x-should-retry` for OpenAI's SDK; None: it decides by the status."""


_BAD = Row(400, "invalid_request_error")
_MISSING = Row(404, "not_found_error")
_OURS = Row(500, "server_error")
_LATER = Row(503, "server_error", should_retry=True)
_SLOWER = Row(429, "rate_limit_error", should_retry=True)

TABLE: dict[type[errors.ApplianceError], Row] = {
    errors.InvalidRequest: _BAD,
    errors.InputTooLong: _BAD,
    errors.UnsupportedDimensions: _BAD,
    errors.TokenInputUnsupported: _BAD,
    errors.WrongTask: _BAD,
    errors.InvalidModelFile: _BAD,
    errors.MissingKey: Row(401, "authentication_error"),
    errors.InvalidKey: Row(401, "authentication_error"),
    errors.InsufficientScope: Row(403, "permission_error"),
    errors.InsufficientCredit: Row(402, "billing_error", should_retry=False),
    errors.DailyBudgetSpent: Row(402, "billing_error", should_retry=False),
    errors.ModelNotFound: _MISSING,
    errors.ModelNotServed: _MISSING,
    errors.LoadFailed: _MISSING,
    errors.TrialUnfinished: _MISSING,
    errors.UnknownPath: _MISSING,
    errors.KeyNotFound: _MISSING,
    errors.DownloadNotFound: _MISSING,
    errors.FileNotFound: _MISSING,
    errors.BatchNotFound: _MISSING,
    errors.DownloadFailed: Row(502, "server_error", should_retry=False),
    errors.DownloadCancelled: Row(502, "server_error", should_retry=False),
    errors.UnknownHost: Row(421, "invalid_request_error"),
    errors.ForeignOrigin: Row(403, "permission_error"),
    errors.MethodNotAllowed: Row(405, "invalid_request_error"),
    errors.BodyTooLarge: Row(413, "invalid_request_error"),
    errors.UnsupportedEncoding: Row(415, "invalid_request_error"),
    errors.UnsupportedCharset: Row(415, "invalid_request_error"),
    errors.ExpectationFailed: Row(417, "invalid_request_error"),
    errors.UnsupportedTransferCoding: Row(501, "invalid_request_error", should_retry=False),
    errors.IdempotencyKeyReused: Row(422, "invalid_request_error", should_retry=False),
    errors.IdempotencyKeyInUse: Row(409, "conflict_error", should_retry=True),
    errors.IdempotencyKeySpent: Row(409, "conflict_error", should_retry=False),
    errors.AlreadyMinted: Row(409, "conflict_error", should_retry=False),
    errors.RateLimited: _SLOWER,
    errors.TooManyInvalidKeys: Row(429, "rate_limit_error", should_retry=False),
    errors.QueueFull: _SLOWER,
    errors.DailyBudgetExceeded: Row(429, "rate_limit_error", should_retry=False),
    errors.InferenceFailed: _OURS,
    errors.HoldNotOpen: _OURS,
    errors.StoreFailed: _OURS,
    errors.InvalidCatalog: _OURS,
    errors.ModelWarming: _LATER,
    errors.Draining: _LATER,
    errors.EngineRestarting: _LATER,
    errors.EngineDied: _LATER,
    errors.StorageFull: _LATER,
    errors.LedgerUnavailable: _LATER,
}


def status_and_code(error: Exception) -> tuple[int, str]:
    """Return the status and code that answer an error; 499: the client hung up before."""
    if isinstance(error, ClientGone):
        return 499, "client_gone"
    if not isinstance(error, errors.ApplianceError):
        return 500, errors.InferenceFailed.code
    return _row(error).status, error.code


def _row(error: errors.ApplianceError) -> Row:
    return next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), _OURS)


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Return the answer for any exception; one of a library becomes a 500 without details."""
    known = _as_ours(request, error)
    row = _row(known)
    body = _body(known, row)
    # Caches may keep a 404, 405, 414 or 501 for as long as they like (RFC 9110, section 15.1).
    headers = {"cache-control": "no-store", **noted_headers(request)}
    if row.status in (429, 503):
        retry_after_s = known.retry_after_s if isinstance(known, errors.RetryableError) else 1
        body["retry_after_s"] = retry_after_s
        headers["retry-after"] = str(retry_after_s)
    headers |= _headers_of(known, row)
    if isinstance(error, HTTPException):
        headers.update(error.headers or {})  # `allow` of a 405, which RFC 9110 asks for
    content = encode(_document(request.scope["path"], body))
    return Response(content, status_code=row.status, media_type="application/json", headers=headers)


def _document(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a refusal, as the clients of that path read it."""
    message = body["message"]
    # Jina's and Voyage's clients print `detail`, Cohere's `message`, all others `error.message`.
    document = {"error": body, "detail": message, "message": message}
    if path.startswith(OLLAMA):
        return {"error": message, "code": body["code"]}
    if path.startswith(TEI) or path in TEI_AT_THE_ROOT:
        return {**document, "error": message, "error_type": body["type"], "code": body["code"]}
    return document


def refusal(error: errors.ApplianceError) -> tuple[int, bytes]:
    """Return the status and the body that answer an error which no request waits for."""
    row = _row(error)
    return row.status, encode({"error": _body(error, row)})


def _body(error: errors.ApplianceError, row: Row) -> dict[str, Any]:
    return {
        "code": error.code or "inference_failed",
        "message": error.message,
        "type": row.kind,
        "param": error.param,
    }


def _headers_of(error: errors.ApplianceError, row: Row) -> dict[str, str]:
    """Return the headers that say how a refused request could be made acceptable."""
    headers = {}
    if row.status == 401:  # noqa: PLR2004 - RFC 9110 asks for the challenge
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, errors.InsufficientScope):  # RFC 6750 names it
        headers["www-authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    if isinstance(error, errors.UnsupportedEncoding):  # RFC 9110, section 15.5.16
        headers["accept-encoding"] = "identity"
    if isinstance(error, errors.UnsupportedCharset):
        headers["accept"] = "application/json"
    if row.should_retry is not None:
        headers["x-should-retry"] = "true" if row.should_retry else "false"
    return headers


def _as_ours(request: Request[Any, Any, Any], error: Exception) -> errors.ApplianceError:
    path = request.scope["path"][:200]
    is_ours = isinstance(error, errors.StoreFailed | errors.InvalidCatalog)
    if is_ours and not path.startswith("/admin/"):
        log.error("%s", error)  # clients are not told: it names files of this machine
        return errors.InferenceFailed("the operator's log says why")
    if isinstance(error, errors.ApplianceError):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 404:  # noqa: PLR2004 - Litestar's own routing
            return errors.UnknownPath(path=path, valid=VALID_PATHS)
        if error.status_code == 405:  # noqa: PLR2004
            return errors.MethodNotAllowed(method=request.method, path=path)
        if error.status_code < 500:  # noqa: PLR2004
            return errors.InvalidRequest(error.detail)
    log.error("unexpected error at %s %s", request.method, path, exc_info=error)
    return errors.InferenceFailed("unexpected error; the log says more")
