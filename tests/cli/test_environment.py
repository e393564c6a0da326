"""What surrounds a command: names of hosts, modes of directories, encodings, other variables."""

import json
import os
import re
import stat
import subprocess
import sys

import httpx2
import pytest

from appliance import start
from appliance.core.errors import InvalidSettings
from appliance.settings import Settings
from appliance.store.datadir import DataDir
from tests.server import ROOT, free_port

SERVICE = {
    "GIGAROUTER_SERVICE_HOST": "10.0.0.1",
    "GIGAROUTER_SERVICE_PORT": "8642",
    "GIGAROUTER_PORT": "tcp://10.0.0.1:8642",
    "GIGAROUTER_PORT_8642_TCP": "tcp://10.0.0.1:8642",
}


def command(*arguments, env=None, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "appliance", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )


def test_a_service_of_our_name_keeps_no_command_and_no_server_from_working(make_server):
    server = make_server()
    listed = command("keys", "list", "--data-dir", server.data_dir, env=SERVICE)
    assert (listed.returncode, listed.stderr) == (0, b"")
    server.start("--fake", env=SERVICE)
    assert server.log.read_text().count("ignored, as set by Kubernetes or Docker: ") == 1
    report = json.loads(server.cli("doctor", "--json").stdout)
    [found] = [each for each in report["data"] if each["name"] == "environment"]
    assert all(name in found["said"] for name in SERVICE)


@pytest.mark.parametrize("host", ["localhost", "127.1", "[::1]", "0.0.0.0", "::"])
def test_a_server_is_reached_by_commands_whatever_its_host_is_called(make_server, host):
    server = make_server()
    minted = command(
        "keys", "mint", "first", "--credit", "unlimited", "--data-dir", server.data_dir
    )
    assert minted.returncode == 0, minted.stderr
    lines = server.start_read("--host", host, "--lan", "--insecure-http")
    assert any("listening on" in line for line in lines), lines
    note = json.loads((server.data_dir / "server.json").read_text())
    assert re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):\d+", note["connect_url"])
    assert httpx2.get(f"{note['connect_url']}/health", timeout=20).status_code == 200
    listed = server.cli("keys", "list")
    assert listed.returncode == 0, listed.stderr
    server.process.terminate()
    server.process.communicate(timeout=40)
    assert server.process.returncode == 0


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "empty"),
        ("nowhere.invalid", "neither"),
        ("lo", "interface"),
        ("192.0.2.1", "cannot listen"),
    ],
)
def test_a_host_that_cannot_be_bound_is_refused_before_anything_is_loaded(tmp_path, host, reason):
    port = free_port()
    flags = ("--host", host, "--port", port, "--lan", "--insecure-http")
    ended = command("serve", *flags, "--data-dir", tmp_path / "data")
    assert ended.returncode == 1
    assert reason in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr
    assert b"is loaded" not in ended.stderr
    assert not (tmp_path / "data" / "gigarouter.db").exists()


def test_an_open_host_under_another_name_still_needs_a_key(tmp_path):
    ended = command(
        "serve", "--fake", "--host", "0", "--port", free_port(), "--data-dir", tmp_path / "d"
    )
    assert ended.returncode == 1
    assert b"open to the network" in ended.stderr


def test_a_directory_that_exists_keeps_its_mode_and_the_server_and_doctor_say_it(make_server):
    server = make_server()
    server.data_dir.mkdir()
    server.data_dir.chmod(0o755)
    assert command("keys", "list", "--data-dir", server.data_dir).returncode == 0
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o755
    server.start("--fake")
    assert "others on this machine may open it (mode 0755)" in server.log.read_text()
    assert "others on this machine may open" in server.cli("doctor").stdout
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o755


def test_a_server_refuses_a_directory_of_another_user(tmp_path, monkeypatch):
    data = DataDir(tmp_path / "data")
    data.create()
    owner = data.path.stat().st_uid
    if owner == 0:
        owner = 12_345
        os.chown(data.path, owner, owner)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(InvalidSettings, match=rf"data_dir: .*belongs to user {owner}"):
        start.checked(data, Settings())
    assert not data.database.exists()


def test_an_empty_data_directory_is_refused_wherever_it_is_given(tmp_path):
    for arguments, env in (
        (("keys", "list", "--data-dir", ""), {}),
        (("keys", "list"), {"GIGAROUTER_DATA_DIR": ""}),
        (("--data-dir", ""), {}),
    ):
        ended = command(*arguments, env=env, cwd=tmp_path)
        assert ended.returncode in (1, 2)
        assert b"is empty" in ended.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=str,
)
def test_an_encoding_without_a_letter_cuts_nothing_off(tmp_path, env):
    data = ("--data-dir", tmp_path / "data")
    assert command("keys", "mint", "文書", *data).returncode == 0
    assert command("keys", "mint", "after", *data).returncode == 0
    listed = command("keys", "list", *data, env=env)
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == 3
    assert b"after" in listed.stdout
    looked = command("doctor", *data, env=env)
    assert len(looked.stdout.splitlines()) >= 8, looked.stderr
    report = json.loads(command("doctor", "--json", *data, env=env).stdout)
    assert looked.returncode == (0 if report["healthy"] else 1)
