"""Metrics: the series of one server, for Prometheus and what reads its format.

Owns the names of the series and their labels. Counters of calls and histograms of their stages are
fed as calls end; what engines know is read when a scrape asks. Times are in seconds. Counters begin
at zero with the process, and only grow: what an engine had counted stays when its model is freed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from appliance.core.flow import FlowReading
from appliance.core.histogram import Buckets
from appliance.observe import money_series
from appliance.observe.engine_series import EngineReading, EngineSeries
from appliance.observe.meters import CallRecord

MODELS_MAX = 1000
"""Models with a label of their own; those that come later share `OTHER`. Keys too."""
OTHER = "other"
BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Upper bounds in seconds, from a tokenizer's work to the longest call."""
BUCKETS_TOKENS = tuple(4**power for power in range(1, 11))
"""Upper bounds of a call's tokens: 4 to a million."""
EXEMPLAR_MAX = 100
"""Characters of a request id beside a sample; OpenMetrics allows 128 with its name."""
OPENMETRICS = "application/openmetrics-text"
MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read when a scrape asks."""

    calls_in_flight: int
    holds_open: int
    backup_failures: int
    engines: tuple[EngineReading, ...]
    """Of one model there may be two: one that drains while another is loaded."""
    memory: Mapping[str, int]
    """By model, the bytes that it takes."""
    memory_max: int | None
    """Bytes that all of them may take; None: whatever they need."""
    loads: Buckets
    """Seconds of each load of a model."""
    flows: FlowReading


class Metrics:
    """One server's series, in a registry of their own.

    Call `note` and `read` on the loop's thread; `render` may run on any.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: set[str] = set()
        self._keys: set[str] = set()
        # What is counted as a call, as refused and as free is said in `core/tally.py`.
        self._requests = self._counter("requests", "Requests that ended.", "tier", "status")
        self._calls = self._counter("calls", "Requests answered and charged.", "tier")
        self._documents = self._counter("documents", "Documents that rerank charged.", "tier")
        self._refusals = self._counter("refusals", "Requests that ended with an error.", "code")
        self._free = self._counter("free_answers", "Requests answered for nothing.")
        self._by_key = Counter(
            "gigarouter_key_requests",
            "Requests of each key that ended, by the HTTP status of the answer.",
            ("key", "status"),
            registry=self._registry,
        )
        self._tokens = Histogram(
            "gigarouter_call_tokens",
            "Tokens of each call.",
            ("model",),
            registry=self._registry,
            buckets=BUCKETS_TOKENS,
        )
        self._stages = Histogram(
            "gigarouter_stage_duration_seconds",
            "Time that an answered call spent in each stage.",
            ("stage",),
            registry=self._registry,
            buckets=BUCKETS_S,
        )
        self._whole = Histogram(
            "gigarouter_call_duration_seconds",
            "Time of an answered call, from its head to its answer.",
            registry=self._registry,
            buckets=BUCKETS_S,
        )
        self._lag = Histogram(
            "gigarouter_event_loop_lag_seconds",
            "How late the event loop woke a sleep of 50 ms.",
            registry=self._registry,
            buckets=BUCKETS_S,
        )
        self._server = _ServerCollector()
        self._registry.register(self._server)
        ProcessCollector(registry=self._registry)

    def __repr__(self) -> str:
        """Say how many models have a label."""
        return f"<Metrics [{len(self._models)} models]>"

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"gigarouter_{name}", what, ("model", *labels), registry=self._registry)

    def note(self, ended: CallRecord) -> None:
        """Count a call that ended."""
        model, status, tally = _label(ended.model, self._models), str(ended.status), ended.tally
        # Whoever sees a slow bucket or a refusal finds one such call in the log.
        exemplar = {"request_id": ended.request_id[:EXEMPLAR_MAX]}
        self._requests.labels(model, ended.tier, status).inc()
        if ended.key_id:
            self._by_key.labels(_label(ended.key_id, self._keys), status).inc()
        if tally.refused:
            self._refusals.labels(model, ended.code).inc(exemplar=exemplar)
        elif tally.free:
            self._free.labels(model).inc()
        else:
            self._calls.labels(model, ended.tier).inc()
            self._documents.labels(model, ended.tier).inc(tally.documents)
            self._tokens.labels(model).observe(tally.tokens)
        if ended.stages:
            self._whole.observe(ended.total_ms / MS_PER_S, exemplar)
            for stage, ms in ended.stages.items():
                self._stages.labels(stage).observe(ms / MS_PER_S)

    def note_lag(self, seconds: float) -> None:
        """Count one look at the event loop."""
        self._lag.observe(seconds)

    def read(self, reading: Reading) -> None:
        """Take what the next scrapes show of engines and of the server."""
        labels = [_label(engine.model, self._models) for engine in reading.engines]
        self._server.take(reading, labels)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the document in the format that an Accept header asks for, and its media type."""
        # Not the client's own choose_encoder: it fails of some versions, and promises all others.
        asked = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
        if OPENMETRICS in asked:
            content = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]  # theirs is not annotated
            return content, openmetrics.CONTENT_TYPE_LATEST
        return exposition.generate_latest(self._registry), exposition.CONTENT_TYPE_PLAIN_0_0_4


def _label(name: str, known: set[str]) -> str:
    """Return a model's or key's label; there is a bound on how many a registry keeps."""
    if name not in known:
        if len(known) >= MODELS_MAX:
            return OTHER
        known.add(name)
    return name


class _ServerCollector(Collector):
    """Shows the last reading, with the engines of one model summed."""

    def __init__(self) -> None:
        self._reading: Reading | None = None
        self._engines = EngineSeries()

    def take(self, reading: Reading, labels: list[str]) -> None:
        """Replace the last reading."""
        self._engines.take(reading.engines, labels)
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        """Yield the series; on any thread, from what `take` has put there whole."""
        reading = self._reading
        if reading is None:
            return
        yield GaugeMetricFamily(
            "gigarouter_calls_in_flight", "Paid calls being served.", value=reading.calls_in_flight
        )
        yield GaugeMetricFamily(
            "gigarouter_holds_open",
            "Reservations of credit that did not end yet.",
            value=reading.holds_open,
        )
        yield CounterMetricFamily(
            "gigarouter_backup_failures",
            "Scheduled backups that failed.",
            value=reading.backup_failures,
        )
        yield from self._engines.collect()
        yield from _memory(reading)
        yield _loads(reading.loads)
        yield from money_series.collect(reading.flows)


def _memory(reading: Reading) -> Iterator[Metric]:
    taken = GaugeMetricFamily(
        "gigarouter_model_memory_bytes",
        "What a model in memory takes, as it is planned with.",
        labels=("model",),
    )
    for model, size in list(reading.memory.items())[:MODELS_MAX]:
        taken.add_metric((model,), size)
    yield taken
    if reading.memory_max is not None:
        yield GaugeMetricFamily(
            "gigarouter_models_memory_max_bytes",
            "What all models together may take.",
            value=reading.memory_max,
        )


def _loads(loads: Buckets) -> HistogramMetricFamily:
    *below, all_of_them = accumulate(loads.counts)
    buckets = [(str(bound), count) for bound, count in zip(loads.bounds, below, strict=True)]
    return HistogramMetricFamily(
        "gigarouter_model_load_seconds",
        "Time that each load of a model took.",
        buckets=[*buckets, ("+Inf", all_of_them)],
        sum_value=loads.total,
    )
