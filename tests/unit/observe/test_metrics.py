import math
import time
from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from appliance.core.flow import Flow, FlowReading
from appliance.core.histogram import Histogram
from appliance.core.units import Picocredits
from appliance.observe import engine_series, metrics
from appliance.observe.engine_series import EngineReading
from appliance.observe.meters import CallRecord
from appliance.observe.metrics import Metrics, Reading

HOSTILE = 'quo"te, back\\slash, new\nline, {brace}, \\n, ümlaut'
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def record(**changes):
    fields = {
        "request_id": "req_1",
        "status": 200,
        "code": "",
        "key": "alice",
        "key_id": "key_1",
        "model": "m",
        "tier": "realtime",
        "tokens": 7,
        "documents": 0,
        "is_charged": True,
        "amount": Picocredits(5),
        "total_ms": 12.0,
        "stages": {"tokenize": 1.0, "queue": 2.0, "inference": 6.0, "settle": 3.0},
    }
    return CallRecord(**{**fields, **changes})


def counters(tokens=0, **changes):
    none = dict.fromkeys(engine_series.ENGINE_COUNTERS, 0)
    fills = {"fills": (0,) * 10, "filled": 0.0}
    return SimpleNamespace(**{**none, **fills, "tokens": tokens, **changes})


NOTHING = FlowReading({}, {}, {}, 0)


def reading(*engines, calls=0, holds=0, failures=0, **changes):
    """Each engine is number, model, counters, waiting tokens, and workers if that matters."""
    found = tuple(EngineReading(*engine, *(2, 1)[len(engine) - 4 :]) for engine in engines)
    rest = {"memory": {}, "memory_max": None, "loads": Histogram([1]).read(), "flows": NOTHING}
    return Reading(calls, holds, failures, found, **{**rest, **changes})


def samples(it, accept=""):
    """Every sample by its name and labels, as Prometheus' own client reads them."""
    content, media_type = it.render(accept)
    is_openmetrics = media_type.startswith("application/openmetrics-text")
    parse = (
        openmetrics_parser.text_string_to_metric_families
        if is_openmetrics
        else text_string_to_metric_families
    )
    found = {}
    for family in parse(content.decode()):
        for sample in family.samples:
            name = sample.name, frozenset(sample.labels.items())
            assert name not in found, name
            found[name] = sample.value
    return found


def value(found, name, **labels):
    return found[name, frozenset(labels.items())]


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
def test_a_label_is_read_back_as_it_was_whatever_is_in_it(accept):
    it = Metrics()
    it.note(record(model=HOSTILE, tier=HOSTILE))
    it.read(reading((1, HOSTILE, counters(tokens=3), 4)))
    found = samples(it, accept)
    assert value(found, "gigarouter_calls_total", model=HOSTILE, tier=HOSTILE) == 1
    assert value(found, "gigarouter_engine_tokens_total", model=HOSTILE) == 3
    assert value(found, "gigarouter_engine_waiting_tokens", model=HOSTILE) == 4


def test_what_ended_is_a_call_refused_or_free_and_counted_once():
    it = Metrics()
    it.note(record())
    it.note(record())
    it.note(record(tier="batch"))
    it.note(record(documents=3))
    it.note(record(tier="", status=429, code="queue_full", is_charged=False, stages={}))
    it.note(record(model="", status=401, code="missing_api_key", is_charged=False, stages={}))
    it.note(record(tier="", tokens=0, is_charged=False, stages={}))
    found = samples(it)
    realtime = {"model": "m", "tier": "realtime"}
    assert value(found, "gigarouter_calls_total", **realtime) == 3
    assert value(found, "gigarouter_call_tokens_sum", model="m") == 28
    assert value(found, "gigarouter_call_tokens_count", model="m") == 4
    assert value(found, "gigarouter_requests_total", model="m", tier="", status="429") == 1
    assert value(found, "gigarouter_documents_total", **realtime) == 3
    assert value(found, "gigarouter_calls_total", model="m", tier="batch") == 1
    assert value(found, "gigarouter_refusals_total", model="m", code="queue_full") == 1
    assert value(found, "gigarouter_refusals_total", model="", code="missing_api_key") == 1
    assert value(found, "gigarouter_free_answers_total", model="m") == 1
    assert sum(each for (name, _), each in found.items() if name == "gigarouter_calls_total") == 4


def test_stages_and_whole_calls_are_histograms_in_seconds_and_refusals_are_not_among_them():
    it = Metrics()
    it.note(record(total_ms=12.0, stages={"queue": 2.0, "inference": 7.0}))
    it.note(record(total_ms=700_000.0, stages={"queue": 2.5}))
    it.note(record(status=402, code="insufficient_credit", stages={}))
    found = samples(it)
    queue = {
        float(dict(labels)["le"]): count
        for (name, labels), count in found.items()
        if name == "gigarouter_stage_duration_seconds_bucket" and ("stage", "queue") in labels
    }
    assert list(queue) == [*metrics.BUCKETS_S, math.inf]
    assert [queue[le] for le in (0.001, 0.0025, 600.0, math.inf)] == [0, 2, 2, 2]
    whole = "gigarouter_call_duration_seconds"
    assert value(found, f"{whole}_bucket", le="0.01") == 0
    assert value(found, f"{whole}_bucket", le="0.025") == 1
    assert value(found, f"{whole}_bucket", le="600.0") == 1
    assert value(found, f"{whole}_count") == 2
    assert value(found, f"{whole}_sum") == pytest.approx(700.012)
    assert value(found, "gigarouter_stage_duration_seconds_count", stage="inference") == 1


def test_engines_of_one_model_are_one_series():
    """An old one that drains, while another is loaded from a file that was replaced."""
    it = Metrics()
    busy = counters(tokens=2, busy_ns=1_500_000_000)
    engines = (1, "m", counters(tokens=40), 5), (2, "m", busy, 1), (3, "n", counters(tokens=1), 0)
    it.read(reading(*engines))
    found = samples(it)
    assert value(found, "gigarouter_engine_tokens_total", model="m") == 42
    assert value(found, "gigarouter_engine_waiting_tokens", model="m") == 6
    assert value(found, "gigarouter_engine_busy_seconds_total", model="m") == 1.5
    assert value(found, "gigarouter_engine_tokens_total", model="n") == 1


def test_a_models_counters_never_fall_when_an_engine_goes_or_is_loaded_again():
    it = Metrics()
    old, new = (1, "m", counters(tokens=45), 5), (2, "m", counters(tokens=3), 0)
    seen = []
    for engines in ((old,), (), (), (new,), (new,), (), (new,)):
        it.read(reading(*engines))
        seen.append(value(samples(it), "gigarouter_engine_tokens_total", model="m"))
    assert seen == [45, 45, 45, 48, 48, 48, 48]
    assert ("gigarouter_engine_waiting_tokens", frozenset({("model", "m")})) in samples(it)


def test_counters_of_engines_that_are_gone_are_not_kept_for_ever():
    it = Metrics()
    for number in range(100):
        it.read(reading((number, "m", counters(tokens=1), 0)))
    assert len(it._server._engines._known) <= 2
    assert value(samples(it), "gigarouter_engine_tokens_total", model="m") == 100


def test_one_engine_is_counted_once_however_often_it_is_read():
    """Each reading has its own copy of what the engine counted."""
    it = Metrics()
    for tokens in (5, 6, 7, 7, 7):
        it.read(reading((1, "m", counters(tokens=tokens), 0)))
    assert value(samples(it), "gigarouter_engine_tokens_total", model="m") == 7


def test_models_beyond_the_bound_share_a_label(monkeypatch):
    monkeypatch.setattr(metrics, "MODELS_MAX", 2)
    it = Metrics()
    for model in ("a", "b", "c", "d", "a"):
        it.note(record(model=model))
    it.read(reading((1, "e", counters(tokens=1), 2), (2, "f", counters(tokens=1), 2)))
    found = samples(it)
    calls = {
        dict(labels)["model"]: count
        for (name, labels), count in found.items()
        if name == "gigarouter_calls_total"
    }
    assert calls == {"a": 2, "b": 1, "other": 2}
    assert value(found, "gigarouter_engine_waiting_tokens", model="other") == 4


def test_the_server_and_its_process_are_shown():
    it = Metrics()
    it.read(reading(calls=3, holds=1, failures=2))
    found = samples(it)
    assert value(found, "gigarouter_calls_in_flight") == 3
    assert value(found, "gigarouter_holds_open") == 1
    assert value(found, "gigarouter_backup_failures_total") == 2
    assert value(found, "process_resident_memory_bytes") > 1_000_000
    assert value(found, "process_open_fds") > 0


def test_how_full_batches_were_is_a_histogram_that_outlives_its_engine():
    it = Metrics()
    fills = (1, 0, 0, 0, 2, 0, 0, 0, 0, 4)
    it.read(reading((1, "m", counters(fills=fills, filled=5.1), 0)))
    it.read(reading())
    it.read(reading((2, "m", counters(fills=fills, filled=5.1), 0)))
    found = samples(it, OPENMETRICS)
    name = "gigarouter_engine_batch_fill_ratio"
    for le, count in (("0.1", 2), ("0.4", 2), ("0.5", 6), ("0.9", 6), ("1.0", 14), ("+Inf", 14)):
        assert value(found, f"{name}_bucket", model="m", le=le) == count
    assert value(found, f"{name}_sum", model="m") == pytest.approx(10.2)
    assert value(found, f"{name}_count", model="m") == 14


def test_workers_memory_and_loads_are_shown():
    it = Metrics()
    loads = Histogram([0.5, 1])
    for seconds in (0.2, 0.7, 3.0):
        loads.add(seconds)
    engines = (1, "m", counters(), 0, 2, 1), (2, "m", counters(), 0, 1, 1)
    it.read(reading(*engines, memory={"m": 70, "n": 5}, memory_max=100, loads=loads.read()))
    found = samples(it)
    workers = "gigarouter_engine_workers"
    assert value(found, workers, model="m", state="computing") == 2
    assert value(found, workers, model="m", state="idle") == 1
    assert value(found, "gigarouter_model_memory_bytes", model="n") == 5
    assert value(found, "gigarouter_models_memory_max_bytes") == 100
    load = "gigarouter_model_load_seconds"
    assert [value(found, f"{load}_bucket", le=le) for le in ("0.5", "1", "+Inf")] == [1, 2, 3]
    assert value(found, f"{load}_sum") == pytest.approx(3.9)


def test_money_is_exact_to_the_picocredit():
    it = Metrics()
    most = 2**53 - 1
    flows = FlowReading(
        charges={("m", "realtime"): Flow(3, 70, most), ("m", "batch"): Flow(1, 5, 1)},
        keys={"key_1": Flow(4, 75, most)},
        others={"grant": Flow(1, 0, 10), "refund": Flow(2, 0, 3)},
        left=-7,
    )
    it.read(reading(flows=flows))
    found = samples(it)
    charged = "gigarouter_charged_picocredits_total"
    assert value(found, charged, model="m", tier="realtime") == most
    assert value(found, charged, model="m", tier="batch") == 1
    assert value(found, "gigarouter_charges_total", model="m", tier="realtime") == 3
    assert value(found, "gigarouter_charged_units_total", model="m", tier="batch") == 5
    assert value(found, "gigarouter_key_charged_picocredits_total", key="key_1") == most
    assert value(found, "gigarouter_credited_picocredits_total", kind="grant") == 10
    assert value(found, "gigarouter_credited_picocredits_total", kind="refund") == 3
    assert value(found, "gigarouter_left_picocredits") == -7


def test_calls_are_counted_by_key_too_and_their_tokens_by_model():
    it = Metrics()
    for tokens in (3, 16, 17):
        it.note(record(tokens=tokens))
    it.note(record(key_id="key_2", status=402, code="insufficient_credit", stages={}))
    it.note(record(key_id="", status=401, code="invalid_key", stages={}))
    found = samples(it)
    assert value(found, "gigarouter_key_requests_total", key="key_1", status="200") == 3
    assert value(found, "gigarouter_key_requests_total", key="key_2", status="402") == 1
    assert (
        "gigarouter_key_requests_total",
        frozenset({("key", ""), ("status", "401")}),
    ) not in found
    tokens = "gigarouter_call_tokens"
    below = [value(found, f"{tokens}_bucket", model="m", le=le) for le in ("4.0", "16.0", "64.0")]
    assert below == [1, 2, 3]
    assert value(found, f"{tokens}_sum", model="m") == 36


def test_a_bucket_and_a_refusal_name_a_call_where_the_format_can():
    it = Metrics()
    it.note(record(request_id="r" * 300))
    it.note(record(request_id="req_2", status=429, code="queue_full", stages={}))
    content, _ = it.render(OPENMETRICS)
    assert f'# {{request_id="{"r" * metrics.EXEMPLAR_MAX}"}} 0.012' in content.decode()
    assert '# {request_id="req_2"} 1.0' in content.decode()
    samples(it, OPENMETRICS)
    assert b"req_2" not in it.render("")[0]


def test_two_servers_of_one_process_do_not_share_their_series():
    one, other = Metrics(), Metrics()
    one.note(record())
    assert not [name for name, _ in samples(other) if name == "gigarouter_calls_total"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html, */*;q=0.1", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (f"{OPENMETRICS};q=0.8,text/plain;version=0.0.4;q=0.5", "application/openmetrics-text"),
        ("application/openmetrics-text; version=x", "application/openmetrics-text; version=1.0.0"),
        (
            "application/openmetrics-text; version=99.1.\xff",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("nonsense;;;=,,", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for_and_a_version_that_we_speak(accept, expected):
    it = Metrics()
    it.read(reading((1, "m", counters(), 0)))
    content, media_type = it.render(accept)
    assert media_type.startswith(expected)
    assert media_type.isascii()
    assert content.endswith(b"# EOF\n") == media_type.startswith("application/")


def test_reading_two_hundred_engines_takes_the_loop_less_than_a_few_milliseconds():
    it = Metrics()
    engines = reading(
        *((number, f"owner/model-{number}", counters(tokens=1), 2) for number in range(200))
    )
    took = []
    for _ in range(10):
        began = time.perf_counter()
        it.read(engines)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.003
