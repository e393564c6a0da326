"""What a run of the bench says of itself, and how two runs are compared."""

import msgspec
import pytest

from appliance import machine
from appliance.bench import report
from appliance.bench.comparison import Figures, Result
from appliance.bench.report import Report, Setting
from appliance.core.errors import InvalidRequest
from tests.kernels import supported

HERE = Setting("a processor", 2, "AVX2 = 1", "gigarouter's", "0.3.16", "1.0", "abc1234")


def result(name, rate, ratio=None):
    return Result(name, 5, Figures(rate, rate, rate, 1, 2, 3, 0, ""), ratio=ratio)


def run(*results, **changes):
    return Report(msgspec.structs.replace(HERE, **changes), list(results))


def test_a_run_names_machine_engine_and_commit():
    found = report.of([result("short-1", 5.0)])
    assert found.setting.cores == machine.cores()
    assert found.setting.processor
    assert "CPU" in found.setting.features
    assert found.setting.kernels in (f"gigarouter's ({supported()[0]})", "llama.cpp's own")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Report) == found


def test_what_became_slower_by_more_than_the_tolerance_is_named():
    before = run(result("short-1", 100.0), result("b32x64", 10.0))
    now = run(result("short-1", 89.0), result("b32x64", 9.5), commit="def")
    assert report.slower(before, now, tolerance=0.1) == [
        "short-1: 89.00 req/s, 100.00 before (0.89)"
    ]
    assert report.slower(before, now, tolerance=0.12) == []
    assert len(report.slower(before, now, tolerance=0.01)) == 2


def test_beside_a_peer_the_ratios_count_and_not_the_machines_speed_of_the_hour():
    before = run(result("short-1", 100.0, ratio=1.2))
    assert report.slower(before, run(result("short-1", 50.0, ratio=1.2)), tolerance=0.1) == []
    [line] = report.slower(before, run(result("short-1", 200.0, ratio=0.9)), tolerance=0.1)
    assert line == "short-1: 0.90 of the peer's, 1.20 before (0.75)"
    # One of them alone says nothing.
    assert report.slower(before, run(result("short-1", 100.0)), tolerance=0.1) == []


@pytest.mark.parametrize(
    "changes",
    [{"processor": "other"}, {"cores": 4}, {"features": ""}, {"kernels": ""}, {"engine": "9"}],
)
def test_runs_of_two_machines_or_engines_are_not_compared(changes):
    with pytest.raises(InvalidRequest, match=f"the earlier run's {next(iter(changes))}") as refused:
        report.slower(run(result("a", 1)), run(result("a", 1), **changes), tolerance=0.1)
    assert refused.value.param == "check"


def test_runs_without_a_common_workload_are_not_compared():
    with pytest.raises(InvalidRequest, match="no workload"):
        report.slower(run(result("a", 1)), run(result("b", 1)), tolerance=0.1)


def test_a_file_that_is_no_report_is_refused_by_name(tmp_path):
    path = tmp_path / "before.json"
    with pytest.raises(InvalidRequest, match="cannot be read"):
        report.read(path)
    path.write_text("[]")
    with pytest.raises(InvalidRequest, match="is not what `gigarouter bench --json` prints"):
        report.read(path)
    path.write_bytes(msgspec.json.encode(run(result("a", 1))))
    assert report.read(path) == run(result("a", 1))


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path, monkeypatch):
    assert report._commit(tmp_path) == ""
    (tmp_path / ".git").mkdir()  # not one that git knows
    assert report._commit(tmp_path) == ""
    monkeypatch.setenv("PATH", "")
    assert report._commit(tmp_path) == ""
