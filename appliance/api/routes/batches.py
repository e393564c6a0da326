"""Batches: `/v1/batches`: many requests in a file, answered within a day; OpenAI's shapes."""

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.api.keyed import asked_limit, read_order, require_key
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.ledger.batches import Batch
from appliance.wire.batches import WINDOW, BatchList, BatchOrder, BatchView, RequestCounts

US_PER_S = 1_000_000


@post("/v1/batches", status_code=200)
async def create_batch(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Order a batch."""
    key, order = await read_order(request, services, BatchOrder)
    return answer(batch_view(await services.offline.batches.create(key, order)))


@get("/v1/batches")
async def list_batches(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """List a key's batches, the newest first."""
    key = await require_key(request, services, services.limits)
    found, has_more = await services.offline.batches.page(
        key,
        after=request.query_params.get("after"),
        limit=asked_limit(request, usual=20, most=100),
    )
    views = [batch_view(batch) for batch in found]
    first, last = (views[0].id, views[-1].id) if views else (None, None)
    return answer(BatchList(views, first, last, has_more))


@get("/v1/batches/{batch_id:str}")
async def show_batch(
    batch_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show one batch."""
    key = await require_key(request, services, services.limits)
    return answer(batch_view(await services.offline.batches.show(key, batch_id)))


@post("/v1/batches/{batch_id:str}/cancel", status_code=200)
async def cancel_batch(
    batch_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Cancel a batch; what was answered stays."""
    key = await require_key(request, services, services.limits)
    return answer(batch_view(await services.offline.batches.cancel(key, batch_id)))


def batch_view(batch: Batch) -> BatchView:
    """Return what a key's holder is shown of a batch."""
    errors = [
        {"code": each.code, "message": each.message, "param": each.param, "line": each.line}
        for each in batch.errors
    ]
    has_results = not batch.is_open
    return BatchView(
        id=batch.id,
        endpoint=batch.endpoint,
        errors={"object": "list", "data": errors} if errors else None,
        input_file_id=batch.input_file,
        completion_window=WINDOW,
        status=batch.status,
        output_file_id=batch.output_file if has_results and batch.output_bytes else None,
        error_file_id=batch.error_file if has_results and batch.error_bytes else None,
        created_at=batch.created_us // US_PER_S,
        in_progress_at=_seconds(batch.in_progress_us),
        expires_at=batch.expires_us // US_PER_S,
        finalizing_at=_seconds(batch.finalizing_us),
        completed_at=_seconds(batch.completed_us),
        failed_at=_seconds(batch.failed_us),
        expired_at=_seconds(batch.expired_us),
        cancelling_at=_seconds(batch.cancelling_us),
        cancelled_at=_seconds(batch.cancelled_us),
        request_counts=RequestCounts(batch.total, batch.completed, batch.failed),
        metadata=batch.metadata or None,
    )


def _seconds(moment_us: int | None) -> int | None:
    return None if moment_us is None else moment_us // US_PER_S
