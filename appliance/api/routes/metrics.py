"""Metrics: `GET /metrics`, Prometheus' text format, for the operator.

Owns the names of the series. Counters begin at zero with each load of a model, as Prometheus
expects of a process that restarts.
"""

from collections.abc import Iterator

from litestar import Response, get
from litestar.di import NamedDependency

from appliance.api.services import Services
from appliance.scheduler.engine import Engine

TEXT = "text/plain; version=0.0.4"
"""Litestar adds the charset to text of any kind."""

COUNTERS = {
    "batches": "Calls of the engine.",
    "sequences": "Sequences computed.",
    "tokens": "Tokens computed.",
    "shared": "Sequences that took the result of an equal one in flight.",
    "cached": "Sequences whose row was in the vector cache.",
}


@get("/", sync_to_thread=False)
def metrics(services: NamedDependency[Services]) -> Response[str]:
    """Show what the engines have done."""
    lines = [
        "# HELP gigarouter_calls_in_flight Paid calls being served.",
        "# TYPE gigarouter_calls_in_flight gauge",
        f"gigarouter_calls_in_flight {services.pipeline.in_flight}",
        "# HELP gigarouter_backup_failures_total Scheduled backups that failed.",
        "# TYPE gigarouter_backup_failures_total counter",
        f"gigarouter_backup_failures_total {services.admin.books.failures}",
        *_engines(services.residency.engines()),
    ]
    return Response("\n".join(lines) + "\n", status_code=200, media_type=TEXT)


def _engines(engines: list[Engine]) -> Iterator[str]:
    for name, text in COUNTERS.items():
        series = f"gigarouter_engine_{name}_total"
        yield f"# HELP {series} {text}"
        yield f"# TYPE {series} counter"
        for engine in engines:
            yield f"{series}{_label(engine)} {getattr(engine.counters, name)}"
    yield "# HELP gigarouter_engine_busy_seconds_total Time workers computed, summed over workers."
    yield "# TYPE gigarouter_engine_busy_seconds_total counter"
    for engine in engines:
        seconds = engine.counters.busy_ns / 1e9
        yield f"gigarouter_engine_busy_seconds_total{_label(engine)} {seconds:.6f}"
    yield "# HELP gigarouter_engine_waiting_tokens Tokens in the queue and in batches."
    yield "# TYPE gigarouter_engine_waiting_tokens gauge"
    for engine in engines:
        yield f"gigarouter_engine_waiting_tokens{_label(engine)} {engine.tokens_waiting}"


def _label(engine: Engine) -> str:
    name = engine.name.replace("\\", r"\\").replace('"', r"\"")
    return f'{{model="{name}"}}'
