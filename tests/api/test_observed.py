"""A call as those who watch the server see it: a line of the access log, and a trace."""

import asyncio
import logging

from appliance.observe.access_log import NAME
from tests.appliance import bench
from tests.server import EMBED
from tests.unit.observe.test_traces import PARENT, TRACE, collector

SECRET = "a text that nobody else may read"


def test_a_call_is_a_line_and_a_trace_and_neither_holds_a_text_or_a_key(tmp_path, caplog):
    async def story(url):
        settings = {"access_log": True, "otlp_endpoint": url}
        async with bench(tmp_path / "data", **settings) as it:
            minted = await it.mint()
            headers = {
                "authorization": f"Bearer {minted.key}",
                "traceparent": f"00-{TRACE}-{PARENT}-01",
                "x-request-id": "req-of-mine",
            }
            body = {"model": EMBED, "input": SECRET}
            answer = await it.client.post("/v1/embeddings", json=body, headers=headers)
            assert answer.status_code == 200
            refused = await it.client.post("/v1/embeddings", json=body)
            assert refused.status_code == 401
            return minted, answer

    with collector() as (url, spans), caplog.at_level(logging.INFO, NAME):
        minted, answer = asyncio.run(story(url))
    called, refused = (line.fields for line in caplog.records if line.name == NAME)
    assert (called["status"], called["key"]) == (200, minted.id)
    assert called["request_id"] == answer.headers["x-request-id"] == "req-of-mine"
    assert called["cost"] == answer.headers["x-cost"]
    assert (refused["status"], refused["key"]) == (401, "")
    assert set(called["stages"]) == {"tokenize", "queue", "inference", "settle"}
    by_name = {span.name: span for span in spans}
    whole = by_name.pop("embeddings " + EMBED)
    assert whole.trace_id.hex() == TRACE
    del by_name["embeddings refused"]
    assert set(by_name) == set(called["stages"])
    assert all(span.parent_span_id == whole.span_id for span in by_name.values())
    for shown in (str(called), str(spans), caplog.text):
        assert SECRET not in shown
        assert minted.key not in shown


def test_a_collector_that_is_gone_keeps_no_call_and_no_stop_waiting(tmp_path):
    async def story():
        async with asyncio.timeout(30):
            settings = {"otlp_endpoint": "http://127.0.0.1:9"}
            async with bench(tmp_path / "data", **settings) as it:
                headers = await it.key()
                body = {"model": EMBED, "input": "a"}
                answer = await it.client.post("/v1/embeddings", json=body, headers=headers)
                assert answer.status_code == 200

    asyncio.run(story())
