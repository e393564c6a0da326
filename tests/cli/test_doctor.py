"""`gigarouter doctor`, as a person and a script use it, with a server and without."""

import json
import re

import pytest

from tests.cli.test_cli import gigarouter
from tests.server import Server


def looked(data_dir):
    end = gigarouter("doctor", "--json", data_dir=data_dir)
    return end.returncode, json.loads(end.stdout)


def without_sizes(said):
    """Free memory and free disk are others a moment later."""
    return json.loads(re.sub(r"[\d.]+ (of [\d.]+ )?(GB|MB)", "N", json.dumps(said)))


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
            assert without_sizes(admin.get("/doctor").json()) == without_sizes(served)
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


def test_that_no_server_runs_is_a_finding_where_one_is_wanted(tmp_path):
    directory = tmp_path / "data"
    end = gigarouter("doctor", "--running", data_dir=directory)
    assert end.returncode == 1
    assert f"no server runs on {directory}" in end.stdout
    assert not (directory / "gigarouter.db").exists(), (
        "a look opens no books beside a server's start"
    )
    server = Server(directory).start("--fake")
    try:
        assert gigarouter("doctor", "--running", data_dir=directory).returncode == 0
    finally:
        server.close()
    assert gigarouter("doctor", "--running", data_dir=directory).returncode == 1


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


def test_a_broken_models_file_is_a_finding_and_harms_model_verbs_alone(tmp_path, make_server):
    directory = tmp_path / "data"
    assert looked(directory)[0] == 0
    broken = "schema = 1\n[[model]\n"
    (directory / "models.toml").write_text(broken)
    code, report = looked(directory)
    [finding] = [each for each in report["data"] if each["status"] == "fail"]
    assert (code, finding["name"]) == (1, "models")
    assert "models.toml" in finding["said"]
    assert "line 2" in finding["said"]
    for verb in (
        ("keys", "list"),
        ("usage",),
        ("backup", tmp_path / "copy"),
        ("keys", "mint", "x"),
    ):
        end = gigarouter(*verb, data_dir=directory)
        assert end.returncode == 0, end.stderr
    listed = gigarouter("models", "list", data_dir=directory)
    assert listed.returncode == 1
    assert "sentence-transformers/all-MiniLM-L6-v2" in listed.stdout
    price = gigarouter("models", "price", "starter-rerank", "--realtime", "1", data_dir=directory)
    assert price.returncode == 1
    for end in (listed, price):
        [line] = end.stderr.splitlines()
        assert "models.toml" in line
        assert "line 2" in line
        assert "Mend it there, or move the file away" in line
    assert (directory / "models.toml").read_text() == broken


def test_a_server_with_a_broken_models_file_serves_what_ships_and_says_so(make_server):
    server = make_server()
    server.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (server.data_dir / "models.toml").write_text("schema = 1\n[[model]\n")
    server.start("--fake")
    with server.client() as client:
        health = client.get("/health").json()
        assert health["status"] == "ok"
        assert "models.toml cannot be read" in health["warning"]
        assert (
            str(server.data_dir) not in client.get("/health").text + client.get("/v1/models").text
        )
        body = {"model": "all-minilm-l6-v2", "input": "a"}
        client.headers["prefer"] = "wait=30"
        assert client.post("/v1/embeddings", json=body).status_code == 200
    end = server.cli("models", "price", "starter-rerank", "--realtime", "1")
    assert end.returncode == 1
    assert "line 2" in end.stderr
    assert "only the shipped models are served" in server.log.read_text()
