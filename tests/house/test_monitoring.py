"""Dashboard and alerts speak of series and codes that a server has."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from appliance.core import errors
from appliance.core.flow import Flow, FlowReading
from appliance.core.histogram import Histogram
from appliance.core.units import Picocredits
from appliance.observe.engine_series import ENGINE_COUNTERS, EngineReading
from appliance.observe.meters import CallRecord
from appliance.observe.metrics import Metrics, Reading

HERE = Path(__file__).resolve().parents[2] / "packaging/monitoring"


def shown() -> set[str]:
    """Return the name of every sample of a server that has done something of everything."""
    it = Metrics()
    ended = CallRecord(
        request_id="req_1",
        status=200,
        code="",
        key="a",
        key_id="key_1",
        model="m",
        tier="batch",
        tokens=1,
        documents=0,
        is_charged=True,
        amount=Picocredits(1),
        total_ms=1.0,
        stages={"queue": 1.0},
    )
    it.note(ended)
    it.note(replace(ended, status=429, code="queue_full", is_charged=False))
    it.note_lag(0.1)
    counters = SimpleNamespace(**dict.fromkeys(ENGINE_COUNTERS, 1), fills=(1,) * 10, filled=1.0)
    flows = FlowReading({("m", "batch"): Flow(1, 1, 1)}, {"key_1": Flow()}, {"grant": Flow()}, 1)
    engine = EngineReading(1, "m", counters, 0, workers=1, computing=1)
    loads = Histogram([1.0]).read()
    it.read(Reading(0, 0, 0, (engine,), {"m": 1}, 1, loads, flows))
    lines = it.render("")[0].decode().splitlines()
    return {re.match(r"\w+", line)[0] for line in lines if not line.startswith("#")} | {"up"}


def named(text: str) -> set[str]:
    """Return every series that expressions name."""
    return set(re.findall(r"\b(?:gigarouter|process)_\w+", text))


def test_every_series_of_the_dashboard_and_of_the_alerts_is_shown_by_a_server():
    found = shown()
    panels = json.loads((HERE / "dashboard.json").read_text("utf-8"))["panels"]
    expressions = [target["expr"] for each in panels for target in each.get("targets", ())]
    assert len(expressions) > 15
    assert named(" ".join(expressions)) <= found
    rules = (HERE / "alerts.yml").read_text("utf-8")
    assert named(rules) <= found
    assert len(re.findall(r"- alert: ", rules)) == len(re.findall(r"description: ", rules)) > 5


def test_the_codes_of_the_alerts_are_errors():
    known = {
        each.code
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.ApplianceError)
    }
    rules = (HERE / "alerts.yml").read_text("utf-8")
    codes = {code for group in re.findall(r'code=~?"([^"]+)"', rules) for code in group.split("|")}
    assert len(codes) >= 3
    assert codes <= known


def test_the_dashboard_is_what_its_script_writes():
    written = subprocess.run(
        [sys.executable, HERE / "dashboard.py"], capture_output=True, text=True, check=True
    )
    assert written.stdout == (HERE / "dashboard.json").read_text("utf-8")
