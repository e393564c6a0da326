import json
import logging

from appliance import logs
from appliance.core.units import Picocredits
from appliance.observe import access_log
from tests.unit.observe.test_metrics import record


def test_a_call_is_one_line_with_everything_but_its_content(caplog):
    with caplog.at_level(logging.INFO, access_log.NAME):
        access_log.note(record(amount=Picocredits(140), stages={"queue": 1.23456}))
    [line] = caplog.records
    assert json.loads(logs.JsonFormatter().format(line)) == {
        "at": logs.JsonFormatter().formatTime(line, "%Y-%m-%dT%H:%M:%S%z"),
        "level": "info",
        "logger": "gigarouter.access",
        "message": line.getMessage(),
        "request_id": "req_1",
        "status": 200,
        "code": "",
        "key": "key_1",
        "model": "m",
        "tier": "realtime",
        "tokens": 7,
        "documents": 0,
        "cost": "0.00000000014",
        "ms": 12.0,
        "stages": {"queue": 1.235},
    }
    said = logs.TextFormatter().format(line)
    assert (
        "200 - m realtime tokens=7 documents=0 cost=0.00000000014 ms=12.0 key=key_1 req_1" in said
    )
    assert "alice" not in said


def test_a_refusal_without_a_key_is_a_line_too(caplog):
    refused = record(status=401, code="invalid_api_key", key="", key_id="", model="", stages={})
    with caplog.at_level(logging.INFO, access_log.NAME):
        access_log.note(refused)
    assert caplog.messages[0].startswith("401 invalid_api_key - ")


def test_calls_do_not_fill_the_consoles_log():
    root = logging.getLogger()
    before = list(root.handlers), root.level
    try:
        kept = logs.configure("json")
        access_log.note(record())
        logging.getLogger("gigarouter.serve").info("something else")
        assert [line.message for line in kept.after("").data] == ["something else"]
    finally:
        root.handlers[:], root.level = before
