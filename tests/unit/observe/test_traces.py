"""Spans as a collector receives them."""

import gzip
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from appliance.core.errors import InvalidSettings
from appliance.observe.traces import open_traces
from tests.appliance import HandClock
from tests.unit.observe.test_metrics import record

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MS = 1_000_000


@contextmanager
def collector():
    """Yield the URL of a collector, and the spans that it was sent."""
    spans = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            sent = ExportTraceServiceRequest.FromString(body)
            for of_resource in sent.resource_spans:
                for of_scope in of_resource.scope_spans:
                    spans.extend(of_scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", spans
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sent(*ended):
    """Return what a collector has received once the server has stopped, by name."""
    clock = HandClock()
    clock.advance(1)
    with collector() as (url, spans):
        traces = open_traces(url, clock)
        for each in ended:
            traces.note(each)
        traces.close()
    return clock, {span.name: span for span in spans}


def attributes(span):
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_call_is_a_span_and_each_of_its_stages_one_below_it():
    now = HandClock().mono_ns + 1_000 * MS
    spans = {"queue": (now - 9 * MS, now - 7 * MS), "inference": (now - 7 * MS, now - 1 * MS)}
    clock, found = sent(record(spans=spans, trace_parent=f"00-{TRACE}-{PARENT}-01"))
    whole = found.pop("embeddings m")
    assert whole.trace_id.hex() == TRACE
    assert whole.parent_span_id.hex() == PARENT
    end = clock.wall_us() * 1_000
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (end - 12 * MS, end)
    assert attributes(whole) == {
        "gen_ai.provider.name": "gigarouter",
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 7,
        "http.response.status_code": 200,
        "gigarouter.request_id": "req_1",
        "gigarouter.key": "key_1",
        "gigarouter.tier": "realtime",
        "gigarouter.cost": "0.000000000005",
    }
    assert set(found) == {"queue", "inference"}
    for name, (start, stop) in spans.items():
        part = found[name]
        assert part.parent_span_id == whole.span_id
        assert part.start_time_unix_nano == end - (now - start)
        assert part.end_time_unix_nano == end - (now - stop)


def test_a_failure_of_the_server_is_an_error_and_a_refusal_is_none():
    _, found = sent(
        record(status=500, code="internal_error", model="", spans={}),
        record(status=402, code="insufficient_credit", documents=2, spans={}),
    )
    failed, refused = found["embeddings refused"], found["rerank m"]
    assert (failed.status.code, failed.status.message) == (2, "internal_error")
    assert refused.status.code == 0
    assert attributes(refused)["error.type"] == "insufficient_credit"


@pytest.mark.parametrize("said", ["", "nonsense", f"00-{TRACE}", "00-0-0-01", "ü" * 100])
def test_what_is_no_parent_begins_a_trace_of_its_own(said):
    _, found = sent(record(trace_parent=said))
    assert found["embeddings m"].parent_span_id == b""


def test_without_the_extra_the_setting_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidSettings, match=r"gigarouter\[otel\]"):
        open_traces("http://127.0.0.1:1", HandClock())
