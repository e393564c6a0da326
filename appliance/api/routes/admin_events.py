"""OperatorApi events: `/admin/v1/events`: stats and the log as they come, as server-sent events.

The format is the HTML standard's event stream. A listener that lost its connection sends
`Last-Event-ID`, as browsers do by themselves, and misses no line of the log that is still kept.
"""

from collections.abc import AsyncIterator

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.response import ServerSentEvent, ServerSentEventMessage

from appliance.api.request import AnyRequest
from appliance.api.routes.admin_stats import asked_span, stats_of
from appliance.api.services import Services
from appliance.core.errors import InvalidRequest

EVERY_S = {"0.25": 0.25, "0.5": 0.5, "1": 1.0, "2": 2.0, "5": 5.0, "10": 10.0, "60": 60.0}
RETRY_MS = 2_000


@get("/events")
async def show_events(request: AnyRequest, services: NamedDependency[Services]) -> ServerSentEvent:
    """Tell what happens until either side ends it.

    `?every=` is the seconds between two `stats`, `?span=` their history; `log` events bring each
    line of the log, and `end` says that the server stops.
    """
    span_s = asked_span(request)
    every = request.query_params.get("every", "1")
    if every not in EVERY_S:
        raise InvalidRequest(f"every is one of {', '.join(EVERY_S)}", param="every")
    cursor = request.headers.get("last-event-id", "")
    services.events.require_room()
    return ServerSentEvent(_told(services, span_s, EVERY_S[every], cursor))


async def _told(
    services: Services, span_s: int, every_s: float, cursor: str
) -> AsyncIterator[ServerSentEventMessage]:
    pipeline, log_buffer = services.pipeline, services.log_buffer
    async for _ in services.events.ticks(every_s, lambda: pipeline.draining):
        view = log_buffer.after(cursor)
        for line in view.data:
            yield _message("log", line, log_buffer.cursor(line))
        cursor = view.cursor
        yield _message("stats", await stats_of(services, span_s), cursor)
    if pipeline.draining:
        yield ServerSentEventMessage(event="end", data="the server stops", retry=RETRY_MS)


def _message(event: str, what: msgspec.Struct, cursor: str) -> ServerSentEventMessage:
    return ServerSentEventMessage(
        event=event, id=cursor, data=msgspec.json.encode(what).decode(), retry=RETRY_MS
    )
