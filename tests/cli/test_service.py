"""`gigarouter service …` from the first install to the removal, with stand-ins for systemd."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli.main import cli
from appliance.cli.service import manager_of
from appliance.service.launchd import Launchd
from appliance.service.systemd import Systemd
from appliance.store.datadir import DataDir
from tests.service_managers import JOURNALCTL, LAUNCHCTL, SYSTEMCTL, stand_in


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A home and a PATH with a systemd that runs services by name alone."""
    (tmp_path / "tools").mkdir()
    stand_in(tmp_path / "tools", "systemctl", SYSTEMCTL)
    stand_in(tmp_path / "tools", "journalctl", JOURNALCTL)
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GIGAROUTER_DATA_DIR", str(tmp_path / "data"))
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    before = os.umask(0o077)
    try:
        end = CliRunner().invoke(cli, ["service", *words], prog_name="gigarouter")
    finally:
        os.umask(before)
    return end.exit_code, end.stdout, end.stderr


def unit(machine: Path) -> Path:
    return machine / "config/systemd/user/gigarouter.service"


def test_a_service_is_installed_shown_installed_anew_and_removed(machine):
    code, said, warned = run("install", "--user", "--port", "22700")
    assert (code, warned) == (0, "It ends with your last session unless: loginctl enable-linger\n")
    assert f"{unit(machine)} is written, and the server runs (data in {machine}/data)." in said
    assert f"More settings go into {machine}/config/gigarouter.env" in said
    assert '"--port" "22700"\n' in unit(machine).read_text()

    code, said, _ = run("status", "--user")
    assert code == 0
    assert "active    active (running) since Fri 2026-11-27 18:51:51 UTC" in said
    assert f"data      {machine}/data" in said
    assert "  listening on http" in said
    assert json.loads(run("status", "--user", "--json")[1])["pid"] == 4321

    assert run("install", "--user", "--port", "22701")[0] == 0
    assert '"--port" "22701"\n' in unit(machine).read_text()

    code, said, _ = run("remove", "--user")
    assert (code, said) == (0, f"{unit(machine)} is removed. Data stay in {machine}/data.\n")
    assert not unit(machine).exists()
    code, _, warned = run("status", "--user")
    assert code == 1
    assert "`gigarouter service install --user` makes it" in warned


def test_what_is_printed_changes_nothing_and_calls_nobody(machine):
    code, said, warned = run("install", "--user", "--print")
    assert (code, warned) == (0, "")
    assert said.startswith("# Written by `gigarouter service install`")
    assert f'"--data-dir" "{machine}/data"' in said
    assert not unit(machine).exists()
    assert not (machine / "data").exists()
    assert not (machine / "tools/calls").exists()


def test_what_is_set_now_is_kept_and_what_cannot_be_is_named(machine, monkeypatch):
    (machine / "data").mkdir(mode=0o700)
    (machine / "data/config.toml").write_text('port = 22702\ninsecure_http = true\nhost = "::"\n')
    monkeypatch.setenv("GIGAROUTER_LAN", "true")
    monkeypatch.setenv("GIGAROUTER_THREADS", "2")
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    code, said, warned = run("install", "--user")
    assert code == 0
    assert "Set here and not for the service: GIGAROUTER_THREADS, HF_TOKEN." in warned
    assert "hf_secret" not in said + warned + unit(machine).read_text()
    flags = '"--host" "::" "--port" "22702" "--lan" "--insecure-http"\n'
    assert flags in unit(machine).read_text()


def test_certificates_keep_their_place_wherever_the_command_was_called(machine, monkeypatch):
    monkeypatch.chdir(machine)
    for name in ("cert.pem", "key.pem"):
        (machine / name).touch()
    assert run("install", "--user", "--tls-cert", "cert.pem", "--tls-key", "key.pem")[0] == 0
    assert f'"--tls-cert" "{machine}/cert.pem"' in unit(machine).read_text()


def test_settings_that_a_server_would_refuse_are_refused_before_anything_is_written(machine):
    code, _, warned = run("install", "--user", "--host", "0.0.0.0")
    assert code == 1
    assert "that takes --lan" in warned
    code, _, warned = run("install", "--user", "--port", "0")
    assert code == 1
    assert "port" in warned
    assert not unit(machine).exists()


def test_a_data_directory_that_another_server_holds_is_refused(machine):
    with DataDir(machine / "data").locked():
        code, _, warned = run("install", "--user")
    assert code == 1
    assert f"in use by another gigarouter (process {os.getpid()}); stop it first" in warned
    assert not unit(machine).exists()


def test_a_service_of_the_machine_is_roots_to_install(machine, monkeypatch):
    monkeypatch.setattr("appliance.cli.service.os.geteuid", lambda: 1000)
    code, _, warned = run("install", "--system")
    assert (code, warned) == (
        1,
        "gigarouter: a service of the machine is installed by root; use sudo, or --user\n",
    )
    assert run("install", "--print")[1].count("WantedBy=default.target") == 1


def test_a_service_of_the_machine_has_a_user_and_never_root(machine, monkeypatch):
    monkeypatch.setattr("appliance.cli.service.SYSTEM_DATA_DIR", machine / "none")
    code, _, warned = run("install", "--system", "--print")
    assert code == 1
    assert f"there is no folder {machine}/data" in warned
    (machine / "data").mkdir()
    owner = (machine / "data").stat()
    code, said, warned = run("install", "--system", "--print")
    if owner.st_uid == 0:
        assert "whom no server needs" in warned
    else:
        assert "User=" in said
    monkeypatch.delenv("GIGAROUTER_DATA_DIR")
    assert "DynamicUser=yes\n" in run("install", "--system", "--print")[1]


def test_launchd_gets_a_property_list_and_takes_no_service_without_a_user(machine, monkeypatch):
    (machine / "tools/systemctl").unlink()
    stand_in(machine / "tools", "launchctl", LAUNCHCTL)
    assert run("install", "--user", "--print")[1].startswith("<?xml")
    code, said, _ = run("install", "--user")
    plist = machine / "Library/LaunchAgents/gigarouter.plist"
    assert code == 0
    assert f"{plist} is written" in said
    assert "active    running\n" in run("status", "--user")[1]
    assert run("remove", "--user")[1] == f"{plist} is removed. Data stay in {machine}/data.\n"
    monkeypatch.delenv("GIGAROUTER_DATA_DIR")
    assert "launchd makes no user" in run("install", "--system", "--print")[2]


def test_launchd_is_taken_where_there_is_no_systemd(machine):
    tools = machine / "tools"
    assert isinstance(manager_of("user"), Systemd)
    (tools / "systemctl").unlink()
    stand_in(tools, "launchctl", LAUNCHCTL)
    assert isinstance(manager_of("user"), Launchd)
    stand_in(tools, "systemctl", SYSTEMCTL)
    assert isinstance(manager_of("user"), Systemd)


def test_a_machine_without_systemd_is_told_what_to_do(machine):
    (machine / "tools/systemctl").unlink()
    code, _, warned = run("install", "--user")
    assert code == 1
    assert "neither systemd nor launchd; run `gigarouter serve` under" in warned
