"""Metrics: the series of one server, for Prometheus and what reads its format.

Owns the names of the series and their labels. Counters of calls and histograms of their stages are
fed as calls end; what engines know is read when a scrape asks. Times are in seconds. Counters begin
at zero with the process, and only grow: what an engine had counted stays when its model is freed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from appliance.observe.meters import CallRecord

MODELS_MAX = 1000
"""Models with a label of their own; those that come later share `OTHER`."""
OTHER = "other"
BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Upper bounds in seconds, from a tokenizer's work to the longest call."""
OPENMETRICS = "application/openmetrics-text"
MS_PER_S, NS_PER_S = 1_000, 1_000_000_000

ENGINE_COUNTERS: Mapping[str, str] = MappingProxyType(
    {
        "batches": "Batches computed.",
        "sequences": "Sequences computed.",
        "tokens": "Tokens computed.",
        "shared": "Sequences that took the result of an equal one in flight.",
        "cached": "Sequences whose row was in the vector cache.",
        "busy_ns": "Time in which workers computed, summed over workers.",
    }
)
"""What each engine counts, by attribute."""


class EngineCounters(Protocol):
    """What an engine has done since it was loaded."""

    batches: int
    sequences: int
    tokens: int
    shared: int
    cached: int
    busy_ns: int


@dataclass(frozen=True, slots=True)
class EngineReading:
    """One engine at the moment of a scrape."""

    number: int
    """Tells this engine from every other one of the process."""
    model: str
    counters: EngineCounters
    waiting_tokens: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read when a scrape asks."""

    calls_in_flight: int
    holds_open: int
    backup_failures: int
    engines: tuple[EngineReading, ...]
    """Of one model there may be two: one that drains while another is loaded."""


class Metrics:
    """One server's series, in a registry of their own.

    Call `note` and `read` on the loop's thread; `render` may run on any.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: set[str] = set()
        # What these five count is said in `core/tally.py`.
        self._calls = self._counter("calls", "Requests answered and charged.", "tier")
        self._tokens = self._counter("tokens", "Tokens of the calls, of rerank, too.", "tier")
        self._documents = self._counter("documents", "Documents that rerank charged.", "tier")
        self._refusals = self._counter("refusals", "Requests that ended with an error.", "code")
        self._free = self._counter("free_answers", "Requests answered for nothing.")
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
        model, tally = self._label(ended.model), ended.tally
        if tally.refused:
            self._refusals.labels(model, ended.code).inc()
        elif tally.free:
            self._free.labels(model).inc()
        else:
            self._calls.labels(model, ended.tier).inc()
            self._tokens.labels(model, ended.tier).inc(tally.tokens)
            self._documents.labels(model, ended.tier).inc(tally.documents)
        if ended.stages:
            self._whole.observe(ended.total_ms / MS_PER_S)
            for stage, ms in ended.stages.items():
                self._stages.labels(stage).observe(ms / MS_PER_S)

    def note_lag(self, seconds: float) -> None:
        """Count one look at the event loop."""
        self._lag.observe(seconds)

    def read(self, reading: Reading) -> None:
        """Take what the next scrapes show of engines and of the server."""
        self._server.take(reading, [self._label(engine.model) for engine in reading.engines])

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the document in the format that an Accept header asks for, and its media type."""
        # Not the client's own choose_encoder: it fails of some versions, and promises all others.
        asked = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
        if OPENMETRICS in asked:
            content = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]  # theirs is not annotated
            return content, openmetrics.CONTENT_TYPE_LATEST
        return exposition.generate_latest(self._registry), exposition.CONTENT_TYPE_PLAIN_0_0_4

    def _label(self, model: str) -> str:
        """Return a model's label; there is a bound on how many a registry keeps."""
        if model not in self._models:
            if len(self._models) >= MODELS_MAX:
                return OTHER
            self._models.add(model)
        return model


class _ServerCollector(Collector):
    """Shows the last reading, with the engines of one model summed."""

    def __init__(self) -> None:
        self._gauges = (0, 0, 0)
        self._waiting: dict[str, int] = {}
        self._totals: dict[str, list[int]] = {}
        self._freed: dict[str, list[int]] = {}
        """By model, what engines had counted that are gone."""
        self._known: dict[int, tuple[str, EngineCounters]] = {}
        """By engine, its model and what it had counted when it was read last."""
        self._absent: set[int] = set()
        """Those of engines that the last reading did not name."""

    def take(self, reading: Reading, labels: Iterable[str]) -> None:
        """Replace the last reading."""
        self._gauges = reading.calls_in_flight, reading.holds_open, reading.backup_failures
        waiting: dict[str, int] = {}
        here = set()
        for engine, model in zip(reading.engines, labels, strict=True):
            waiting[model] = waiting.get(model, 0) + engine.waiting_tokens
            here.add(engine.number)
            self._known[engine.number] = model, engine.counters
        self._forget(here)
        totals = {model: list(counts) for model, counts in self._freed.items()}
        for model, counters in self._known.values():
            _add(totals, model, counters)
        self._waiting, self._totals = waiting, totals

    def _forget(self, here: set[int]) -> None:
        """Add the counters of engines that two readings in a row did not name to the freed ones.

        One that a single reading missed may be on its way in or out.
        """
        absent = self._known.keys() - here
        for number in absent & self._absent:
            _add(self._freed, *self._known.pop(number))
        self._absent = absent & self._known.keys()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the series; on any thread, from what `take` has put there whole."""
        calls, holds, failures = self._gauges
        yield GaugeMetricFamily(
            "gigarouter_calls_in_flight", "Paid calls being served.", value=calls
        )
        yield GaugeMetricFamily(
            "gigarouter_holds_open", "Reservations of credit that did not end yet.", value=holds
        )
        yield CounterMetricFamily(
            "gigarouter_backup_failures", "Scheduled backups that failed.", value=failures
        )
        totals = self._totals
        for index, (name, text) in enumerate(ENGINE_COUNTERS.items()):
            series, per = ("busy_seconds", NS_PER_S) if name == "busy_ns" else (name, 1)
            family = CounterMetricFamily(f"gigarouter_engine_{series}", text, labels=("model",))
            for model, counts in totals.items():
                family.add_metric((model,), counts[index] / per)
            yield family
        waiting = GaugeMetricFamily(
            "gigarouter_engine_waiting_tokens",
            "Tokens in the queue and in batches.",
            labels=("model",),
        )
        for model, tokens in self._waiting.items():
            waiting.add_metric((model,), tokens)
        yield waiting


def _add(totals: dict[str, list[int]], model: str, counters: EngineCounters) -> None:
    counts = totals.setdefault(model, [0] * len(ENGINE_COUNTERS))
    for index, name in enumerate(ENGINE_COUNTERS):
        counts[index] += getattr(counters, name)
