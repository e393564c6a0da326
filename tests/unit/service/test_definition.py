"""What a service is, and what it cannot be."""

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.errors import ServiceRefused
from appliance.core.limits import Limits
from appliance.serve import CLOSE_SECONDS, STOP_SECONDS
from appliance.service import definition as module
from appliance.service.definition import Definition, closed_folder, require_open, require_plain
from appliance.stop_deadline import BOOKS_SECONDS, NATIVE_SECONDS

PLAIN = Definition(
    scope="system",
    program=("/opt/g/bin/python", "-P", "-m", "appliance"),
    code=(Path("/opt/g/bin/python"),),
    data_dir=Path("/var/lib/gigarouter"),
    listening=(),
    port=8642,
)


def test_the_command_serves_the_data_directory_with_the_flags_that_were_chosen():
    chosen = replace(PLAIN, listening=(("host", "0.0.0.0"), ("lan", ""), ("tls.cert", "/c")))
    assert chosen.command() == [
        "/opt/g/bin/python",
        "-P",
        "-m",
        "appliance",
        "serve",
        "--data-dir",
        "/var/lib/gigarouter",
        "--host",
        "0.0.0.0",
        "--lan",
        "--tls-cert",
        "/c",
    ]
    assert chosen.command({"tls.cert": "elsewhere"})[-1] == "elsewhere"


def test_a_service_is_given_more_time_to_stop_than_a_server_takes():
    longest = Limits().drain_seconds_max + STOP_SECONDS + CLOSE_SECONDS
    assert longest + max(BOOKS_SECONDS, NATIVE_SECONDS) < module.STOP_SECONDS


@pytest.mark.parametrize(
    ("scope", "user", "is_dynamic"),
    [("system", "", True), ("system", "ann", False), ("user", "", False)],
)
def test_only_a_system_service_without_a_user_gets_one(scope, user, is_dynamic):
    assert replace(PLAIN, scope=scope, user=user).is_dynamic == is_dynamic


def test_it_reaches_below_a_folder_by_its_code_its_data_or_its_certificates():
    home = Path("/home")
    assert not PLAIN.reaches(home)
    assert replace(PLAIN, code=(Path("/home/a/bin/python"),)).reaches(home)
    assert replace(PLAIN, data_dir=Path("/home/a/data")).reaches(home)
    assert replace(PLAIN, listening=(("tls.key", "/home/a/key.pem"),)).reaches(home)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/a\nExecStartPre=/b", "control character"),
        ("/a\x7f", "control character"),
        ("/a\udc80", "not UTF-8"),
        ("/a\\", "ends in a backslash"),
    ],
)
def test_a_text_that_no_file_of_a_service_manager_can_hold_is_refused(path, reason):
    with pytest.raises(ServiceRefused, match=reason):
        require_plain(replace(PLAIN, data_dir=Path(path)))
    require_plain(PLAIN)


@pytest.mark.parametrize("path", ["/o'neil/python", '/a"b/python', "/a\\b/python"])
def test_a_program_that_systemd_would_not_run_is_refused(path):
    with pytest.raises(ServiceRefused, match="install gigarouter elsewhere"):
        require_plain(replace(PLAIN, program=(path,)))


def test_a_program_that_others_cannot_read_is_no_program_of_a_user_that_systemd_makes(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "python"
    program.touch()
    found = closed_folder(program)
    assert found is not None
    assert found in program.parents
    with pytest.raises(ServiceRefused, match="is closed to others"):
        require_open(replace(PLAIN, code=(program,)))
    require_open(replace(PLAIN, code=(program,), user="ann"))
    assert closed_folder(Path("/usr/bin/env")) is None


def test_a_certificate_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ServiceRefused, match=r"tls\.key: there is no file"):
        require_open(replace(PLAIN, listening=(("tls.key", str(tmp_path / "key.pem")),)))
