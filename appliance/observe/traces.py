"""Traces: a span for each call that ended, and one for each of its stages, sent by OTLP.

Owns the only door to OpenTelemetry, which is an extra. Spans are made when a call has ended, from
the times that `server-timing` is made of; a thread of the library's sends them, keeps a bounded
number and drops the rest, so that no call waits for a collector. Names and attributes are those of
OpenTelemetry's semantic conventions for generative AI where it has any.
"""

from importlib.metadata import version
from typing import Any

from appliance.core.clock import Clock
from appliance.core.errors import InvalidSettings
from appliance.core.units import credits_text
from appliance.observe.meters import CallRecord

QUEUE_MAX = 2048
"""Spans that wait to be sent."""
TIMEOUT_S = 10
US_PER_NS = 1_000
NS_PER_MS = 1_000_000


class Traces:
    """Sends spans to one collector."""

    def __init__(self, provider: Any, propagator: Any, clock: Clock) -> None:
        """Take over a provider of tracers, which `close` ends."""
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        self._api = trace
        self._provider = provider
        self._propagator = propagator
        self._tracer = provider.get_tracer("gigarouter", version("gigarouter"))
        self._clock = clock

    def __repr__(self) -> str:
        """Name it."""
        return "<Traces>"

    def note(self, ended: CallRecord) -> None:
        """Make the spans of a call that ended now; one that sent a `traceparent` is its child."""
        now_ns = self._clock.wall_us() * US_PER_NS
        to_wall_ns = now_ns - self._clock.monotonic_ns()
        parent = self._propagator.extract({"traceparent": ended.trace_parent})
        span = self._tracer.start_span(
            f"{'rerank' if ended.documents else 'embeddings'} {ended.model or 'refused'}",
            context=parent,
            kind=self._api.SpanKind.SERVER,
            start_time=now_ns - int(ended.total_ms * NS_PER_MS),
            attributes=_attributes(ended),
        )
        if ended.status >= 500:  # noqa: PLR2004 - the server's fault; a client's is none of the span
            span.set_status(self._api.StatusCode.ERROR, ended.code)
        inside = self._api.set_span_in_context(span)
        for stage, (from_ns, to_ns) in ended.spans.items():
            part = self._tracer.start_span(stage, context=inside, start_time=from_ns + to_wall_ns)
            part.end(end_time=max(from_ns, to_ns) + to_wall_ns)
        span.end(end_time=now_ns)

    def close(self) -> None:
        """Send what waits, for some seconds at the most."""
        self._provider.shutdown()


def _attributes(ended: CallRecord) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "gen_ai.provider.name": "gigarouter",
        "gen_ai.operation.name": "rerank" if ended.documents else "embeddings",
        "gen_ai.usage.input_tokens": ended.tokens,
        "http.response.status_code": ended.status,
        "gigarouter.request_id": ended.request_id,
        "gigarouter.key": ended.key_id,
        "gigarouter.tier": ended.tier,
        "gigarouter.cost": credits_text(ended.amount),
    }
    if ended.model:
        found["gen_ai.request.model"] = ended.model
    if ended.code:
        found["error.type"] = ended.code
    return found


def open_traces(endpoint: str, clock: Clock) -> Traces:
    """Return what sends spans to a collector, `endpoint` being its base URL.

    Raises:
        InvalidSettings: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - as above
            TraceContextTextMapPropagator,
        )
    except ImportError:
        raise InvalidSettings(
            "settings", "otlp_endpoint", "needs OpenTelemetry: pip install 'gigarouter[otel]'"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "gigarouter"}))
    exporter = OTLPSpanExporter(endpoint.rstrip("/") + "/v1/traces", timeout=TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE_MAX))
    return Traces(provider, TraceContextTextMapPropagator(), clock)
