"""OperatorApi stats: `/admin/v1/stats`: what the server does now, in one answer.

And `/admin/v1/history`: what one model did.
"""

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.core.clock import iso
from appliance.core.errors import InvalidRequest
from appliance.core.units import credits_text
from appliance.core.version import program_version
from appliance.machine import resident_bytes
from appliance.observe import history
from appliance.observe.meters import SPANS
from appliance.wire.stats import ModelHistory, Stats

RECENT_SHOWN = 50


@get("/stats")
async def show_stats(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show what happens; `?span=` is the seconds of history, one of `SPANS`."""
    return answer(await stats_of(services, asked_span(request)))


def asked_span(request: AnyRequest) -> int:
    """Return the seconds of history that are asked for.

    Raises:
        InvalidRequest: none is kept of so many; `param` is `span`.
    """
    asked = request.query_params.get("span", "60")
    if asked not in {str(span) for span in SPANS}:
        raise InvalidRequest(f"span is one of {', '.join(map(str, SPANS))}", param="span")
    return int(asked)


@get("/history")
async def show_history(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Show one model's history: `?model=` is its name, `?span=` seconds from an hour on."""
    asked = request.query_params.get("span", "86400")
    if asked not in {str(span) for span in history.SPANS}:
        spans = ", ".join(map(str, history.SPANS))
        raise InvalidRequest(f"span is one of {spans}", param="span")
    model = services.admin.models.catalog.find(request.query_params.get("model", "")).id
    kept, span_s = services.meters.history, int(asked)
    points, step_s = kept.points(span_s, model)
    return answer(ModelHistory(model, span_s, step_s, kept.highest(span_s, model), points))


async def stats_of(services: Services, span_s: int) -> Stats:
    """Return everything at this moment."""
    devices = await services.admin.engines.devices()
    meters, pool = services.meters, services.residency.pool
    engines = services.residency.engines()
    rates = meters.rates()
    points, step_s = meters.points(span_s)
    return Stats(
        now=iso(services.clock.wall_us()) or "",
        uptime_s=meters.uptime_s,
        version=program_version(),
        calls_per_s=rates.calls,
        tokens_per_s=rates.tokens,
        documents_per_s=rates.documents,
        errors_per_s=rates.errors,
        free_per_s=rates.free,
        stages=meters.stages(),
        models=meters.activity("model"),
        keys=meters.activity("key"),
        recent=meters.recent(RECENT_SHOWN),
        history=points,
        step_s=step_s,
        highest=meters.highest(span_s),
        has_keys=services.admin.keys.has_live(),
        charged=credits_text(meters.charged),
        spent_today=credits_text(meters.charged_today),
        refusals=meters.refusals(),
        in_flight=services.pipeline.in_flight,
        waiting_tokens=sum(engine.tokens_waiting for engine in engines),
        batch_fill=max((engine.counters.fill for engine in engines), default=0.0),
        workers_busy=sum(engine.workers[1] for engine in engines),
        workers=sum(engine.workers[0] for engine in engines),
        memory_taken=pool.taken_bytes,
        memory_max=pool.memory_bytes,
        devices=devices,
        process_bytes=resident_bytes(),
        ended_before=meters.before,
    )
