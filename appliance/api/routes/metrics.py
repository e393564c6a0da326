"""Metrics: `GET /metrics`, for the operator and Prometheus."""

import asyncio

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.services import Services
from appliance.observe.engine_series import EngineReading
from appliance.observe.metrics import Reading
from appliance.scheduler.engine import Engine


@get("/")
async def metrics(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show every series, as Prometheus' text or as OpenMetrics, whichever Accept asks for."""
    services.metrics.read(_reading(services))
    # Thousands of lines: rendered beside the loop, so that calls do not wait for them.
    content, media_type = await asyncio.to_thread(
        services.metrics.render, request.headers.get("accept", "")
    )
    # As a header: Litestar would add a second charset to a media type that is text.
    return Response(content, status_code=200, headers={"content-type": media_type})


def _reading(services: Services) -> Reading:
    pool = services.residency.pool
    return Reading(
        calls_in_flight=services.pipeline.in_flight,
        holds_open=services.ledger.holds_open,
        backup_failures=services.admin.books.failures,
        engines=tuple(_engine(each) for each in services.residency.engines()),
        memory={each.spec.id: each.bytes for each in pool.entries.values() if each.takes_memory},
        memory_max=pool.memory_bytes,
        loads=pool.times.seconds.read(),
        flows=services.ledger.flows(),
    )


def _engine(engine: Engine) -> EngineReading:
    workers, computing = engine.workers
    return EngineReading(
        engine.number, engine.name, engine.counters, engine.tokens_waiting, workers, computing
    )
