"""Each check gives one finding, and says what to do where something is to be done."""

from dataclasses import replace

import pytest

from appliance.admin import doctor
from appliance.core.errors import InvalidSettings
from appliance.descriptors import Descriptors
from appliance.ledger.books_health import BooksHealth
from appliance.settings import HubSettings, Settings, TlsSettings
from appliance.store.datadir import DataDir
from appliance.wire.engines import DeviceView, EngineList, EngineView
from tests.tui.fake import model

HOUR_US = 3_600_000_000
GB = 1_000_000_000


def status(finding):
    assert bool(finding.fix) == (finding.status != "ok"), finding
    return finding.status


def test_files_that_others_may_open_are_named(tmp_path):
    directory = DataDir(tmp_path / "data")
    assert status(doctor.files(directory)) == "ok"
    directory.admin_token()
    assert status(doctor.files(directory)) == "ok"
    (directory.path / "admin.token").chmod(0o644)
    found = doctor.files(directory)
    assert status(found) == "warn"
    assert "admin.token" in found.said
    assert str(directory.path) in found.fix


def test_a_directory_of_somebody_else_is_named(tmp_path, monkeypatch):
    directory = DataDir(tmp_path / "data")
    directory.create()
    owner = directory.path.stat().st_uid
    monkeypatch.setattr(doctor.os, "geteuid", lambda: owner + 1)
    found = doctor.files(directory)
    assert status(found) == "warn"
    assert f"belongs to user {owner}" in found.said


def test_variables_of_a_service_of_our_name_are_named():
    assert status(doctor.environment([])) == "ok"
    found = doctor.environment(["GIGAROUTER_SERVICE_HOST"])
    assert status(found) == "warn"
    assert "GIGAROUTER_SERVICE_HOST" in found.said


def test_open_files_are_enough_or_few():
    assert status(doctor.open_files(Descriptors(65_536, 65_536))) == "ok"
    found = doctor.open_files(Descriptors(256, 256))
    assert status(found) == "warn"
    assert "208 of them connections" in found.said


def test_a_host_that_cannot_be_bound_is_a_finding():
    found = doctor.network(Settings(host="nowhere.invalid"))
    assert status(found) == "fail"
    assert "nowhere.invalid" in found.said
    assert status(doctor.network(Settings(host="localhost"))) == "ok"


@pytest.mark.parametrize(("free", "wanted"), [(3 * GB, "ok"), (GB, "warn"), (GB // 10, "fail")])
def test_room_on_the_disk(tmp_path, monkeypatch, free, wanted):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert status(doctor.disk(tmp_path / "not" / "made" / "yet")) == wanted


def test_the_engine_is_ours_or_stock_or_absent():
    facts = {
        "llama-cpp-python": "0.3.36",
        "kernels": "gigarouter's",
        "memory": "gigarouter's",
    }
    assert status(doctor.engine(lambda: facts)) == "ok"
    stock = doctor.engine(lambda: {**facts, "kernels": "llama.cpp's own"})
    assert status(stock) == "warn"
    wasteful = doctor.engine(lambda: {**facts, "memory": "llama.cpp's own"})
    assert status(wasteful) == "warn"
    assert "longer" in wasteful.fix

    def absent():
        raise ImportError("libllama.so: cannot open")

    found = doctor.engine(absent)
    assert status(found) == "fail"
    assert "libllama.so" in found.said


def test_the_network_is_closed_or_private_or_readable(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    tls = TlsSettings(str(cert), str(key))
    assert status(doctor.network(Settings())) == "ok"
    assert status(doctor.network(Settings(host="0.0.0.0"))) == "warn"
    assert status(doctor.network(Settings(host="0.0.0.0", tls=tls))) == "fail"
    for path in (cert, key):
        path.write_text("")
    assert status(doctor.network(Settings(host="0.0.0.0", tls=tls))) == "ok"


def test_somebody_may_call_or_nobody():
    assert status(doctor.keys(has_live=True)) == "ok"
    assert status(doctor.keys(has_live=False)) == "warn"


@pytest.mark.parametrize(
    ("every_h", "age_h", "error", "wanted"),
    [
        (24, None, None, "ok"),
        (24, 30, None, "ok"),
        (24, 49, None, "warn"),
        (0, 1, None, "warn"),
        (24, 1, "no room", "fail"),
    ],
)
def test_backups_are_young_enough(every_h, age_h, error, wanted):
    age_us = None if age_h is None else age_h * HOUR_US
    assert status(doctor.backups(every_h, age_us, error)) == wanted


WELL = BooksHealth(
    bytes=12_300_000,
    log_bytes=1_000_000,
    has_reserve=True,
    broken=None,
    damage=None,
    guard_seq=7,
    guard_agrees=True,
    last_seq=7,
    audited_us=0,
    audit_problem=None,
    audit_error=None,
)


def test_books_that_are_well_say_when_they_last_agreed():
    [found] = doctor.books(WELL, HOUR_US)
    assert status(found) == "ok"
    assert found.said == "12.3 MB, log 1.0 MB; they agreed 60 minutes ago"


@pytest.mark.parametrize(
    ("change", "wanted", "said", "fix"),
    [
        ({"damage": "row 3 missing"}, "fail", "row 3 missing", "restore"),
        ({"guard_agrees": False}, "fail", "transfer 7", "restore"),
        ({"audit_problem": "A: overdrawn"}, "fail", "A: overdrawn", "restore"),
        ({"broken": "disk I/O error"}, "fail", "disk I/O error", "check the disk"),
        ({"audit_error": "busy"}, "warn", "busy", "log"),
        ({"audited_us": -3 * HOUR_US}, "warn", "4 hours old", "start the server again"),
        ({"has_reserve": False}, "warn", "reserve", "free some"),
        ({"log_bytes": 65_000_000}, "warn", "65 MB", "end the program"),
        ({"last_seq": 2_000}, "warn", "1993 transfers behind", "ledger.head"),
    ],
)
def test_what_is_wrong_with_the_books_has_a_finding_with_its_fix(change, wanted, said, fix):
    [found] = doctor.books(replace(WELL, **change), HOUR_US)
    assert status(found) == wanted
    assert said in found.said
    assert fix in found.fix


def test_several_things_are_said_one_by_one_and_the_worst_first():
    found = doctor.books(replace(WELL, damage="x", has_reserve=False), HOUR_US)
    assert [status(each) for each in found] == ["fail", "warn"]


def test_models_that_can_be_called_and_files_that_are_bad():
    here = model("here")
    absent = model("absent", available=False, reason="its file x is not here", missing=True)
    bad = model("bad", available=False, reason="its file is no GGUF")
    assert [status(f) for f in doctor.models([here, absent])] == ["ok"]
    found = doctor.models([here, bad, absent])
    assert [status(f) for f in found] == ["ok", "warn"]
    assert found[1].said == "bad: its file is no GGUF"
    assert [status(f) for f in doctor.models([absent])] == ["fail"]


def test_memory_of_devices_and_the_room_for_models():
    large = DeviceView("CPU", "A processor", "cpu", 25 * GB, 20 * GB)
    small = DeviceView("GPU0", "A card", "gpu", 8 * GB, GB // 2)
    unknown = DeviceView("ACC", "", "accelerator", 0, 0)
    assert status(doctor.memory([large, unknown])) == "ok"
    assert status(doctor.memory([])) == "warn"
    assert status(doctor.memory([large, small])) == "warn"
    failed = EngineView("m", "failed", 0, False, 0, 0, 0.0, 0.0, "no memory")
    assert [status(f) for f in doctor.loaded(EngineList([], GB, 10 * GB, []))] == ["ok"]
    assert [status(f) for f in doctor.loaded(EngineList([], GB, None, []))] == ["ok"]
    full = doctor.loaded(EngineList([failed], 19 * GB, 20 * GB, []))
    assert [status(f) for f in full] == ["warn", "warn"]
    assert "no memory" in full[1].said


def test_what_keeps_it_from_opening_is_a_finding():
    found = doctor.refused(InvalidSettings("config.toml", "port", "is no number"))
    assert status(found) == "fail"
    assert "config.toml" in found.said


def test_a_hub_that_does_not_answer_is_named_with_what_to_do():
    found = doctor.hub(Settings(hub=HubSettings(endpoint="http://127.0.0.1:9")))
    assert status(found) == "warn"
    assert "http://127.0.0.1:9 cannot be reached" in found.said
    assert "hub.endpoint" in found.said
    assert status(doctor.hub(Settings(hub=HubSettings(offline=True)))) == "ok"
