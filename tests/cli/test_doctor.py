"""`gigarouter doctor`, as a person and a script use it, with a server and without."""

import json

import pytest

from tests.cli.test_cli import gigarouter
from tests.server import Server


def looked(data_dir):
    end = gigarouter("doctor", "--json", data_dir=data_dir)
    return end.returncode, json.loads(end.stdout)


def test_a_look_finds_the_same_things_with_a_server_and_without(tmp_path):
    directory = tmp_path / "data"
    code, idle = looked(directory)
    assert (code, idle["healthy"]) == (0, True)
    assert {f["name"]: f["status"] for f in idle["data"]}["keys"] == "warn"
    server = Server(directory).start("--fake")
    try:
        server.mint()
        code, served = looked(directory)
        with server.admin() as admin:
            assert admin.get("/doctor").json() == served
    finally:
        server.close()
    assert (code, served["healthy"]) == (0, True)
    assert {f["name"]: f["status"] for f in served["data"]}["keys"] == "ok"
    names = [f["name"] for f in served["data"]]
    assert [n for n in names if n != "engines"] == [f["name"] for f in idle["data"]]
    assert "engines" in names
    people = gigarouter("doctor", data_dir=directory)
    assert people.returncode == 0
    assert "\u2713 files" in people.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.toml", 'port = "x"'), ("gigarouter.db", "no books")],
)
def test_what_cannot_be_opened_is_a_finding_and_no_traceback(tmp_path, name, content):
    directory = tmp_path / "data"
    assert looked(directory)[0] == 0
    (directory / name).write_text(content)
    code, report = looked(directory)
    assert (code, report["healthy"]) == (1, False)
    assert report["data"][0]["status"] == "fail"
    assert name in report["data"][0]["said"]
    people = gigarouter("doctor", data_dir=directory)
    assert people.returncode == 1
    assert people.stdout.startswith("\u2717 start")
    assert "Traceback" not in people.stdout + people.stderr
    assert (directory / name).read_text() == content
