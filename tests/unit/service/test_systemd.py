"""The calls of systemctl and journalctl, with stand-ins for them on PATH."""

import stat
from dataclasses import replace

import pytest

from appliance.core.errors import ServiceRefused
from appliance.service.systemd import Systemd
from tests.service_managers import JOURNALCTL, SYSTEMCTL, stand_in
from tests.unit.service.test_definition import PLAIN


@pytest.fixture
def systemd(tools, tmp_path):
    stand_in(tools, "systemctl", SYSTEMCTL)
    stand_in(tools, "journalctl", JOURNALCTL)
    return Systemd("system", tmp_path / "units")


def test_a_unit_is_written_enabled_and_started(systemd, tools, calls):
    systemd.install(PLAIN)
    assert systemd.file.read_bytes() == systemd.text(PLAIN)
    assert stat.S_IMODE(systemd.file.stat().st_mode) == 0o644
    assert calls() == [
        "systemctl is-system-running",
        "systemctl daemon-reload",
        "systemctl enable gigarouter.service",
        "systemctl restart gigarouter.service",
    ]


def test_the_manager_of_a_user_is_asked_for_a_users_service(tools, calls, tmp_path):
    stand_in(tools, "systemctl", SYSTEMCTL)
    Systemd("user", tmp_path / "units").install(replace(PLAIN, scope="user"))
    assert all(call.startswith("systemctl --user ") for call in calls())


def test_the_state_is_what_systemd_says_and_the_log_is_of_the_last_run(systemd, tools, calls):
    systemd.install(PLAIN)
    state = systemd.state()
    assert state.file == str(systemd.file)
    assert state.data_dir == "/var/lib/gigarouter"
    assert (state.enabled, state.active, state.pid) == ("enabled", "active (running)", 4321)
    assert state.since == "Fri 2026-11-27 18:51:51 UTC"
    assert state.log == ["listening on http://127.0.0.1:8642"]
    assert "_SYSTEMD_INVOCATION_ID=77aa " in calls()[-1]


def test_a_service_that_does_not_start_is_said_with_its_last_line(systemd, tools, calls):
    (tools / "fails").touch()
    with pytest.raises(ServiceRefused, match=r"Job failed.* Its last line: listening on"):
        systemd.install(PLAIN)


def test_a_removed_service_is_stopped_disabled_and_gone(systemd, tools, calls):
    systemd.install(PLAIN)
    systemd.remove()
    assert not systemd.file.exists()
    assert "systemctl disable --now gigarouter.service" in calls()
    assert systemd.state().file == ""
    with pytest.raises(ServiceRefused, match="there is no "):
        systemd.remove()


def test_a_unit_of_another_hand_is_neither_replaced_nor_removed(systemd):
    systemd.file.parent.mkdir()
    systemd.file.write_text("[Service]\nExecStart=/usr/bin/mine\n")
    for order in (systemd.remove, lambda: systemd.install(PLAIN)):
        with pytest.raises(ServiceRefused, match="by somebody else, and is kept"):
            order()
    assert systemd.file.read_text() == "[Service]\nExecStart=/usr/bin/mine\n"


def test_a_machine_without_a_service_manager_is_told_what_to_do(tools, tmp_path):
    with pytest.raises(ServiceRefused, match=r"neither systemd nor launchd.*gigarouter serve"):
        Systemd("user", tmp_path).state()
    stand_in(tools, "systemctl", 'echo "System has not been booted" >&2; exit 1')
    with pytest.raises(ServiceRefused, match=r"does not run here \(System has not been booted\)"):
        Systemd("system", tmp_path).install(PLAIN)
    assert list(tmp_path.glob("*.service")) == []
