"""The unit as systemd reads it."""

import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.service.definition import require_plain
from appliance.service.unit import MARK, data_dir_in, environment_file, quoted, systemd_unit
from tests.unit.service.test_definition import PLAIN


def values(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        name, is_there, value = line.partition("=")
        if is_there and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_a_unit_of_the_machine_has_a_user_of_its_own_and_no_rights():
    found = values(systemd_unit(PLAIN))
    assert found["DynamicUser"] == ["yes"]
    assert found["StateDirectory"] == ["gigarouter"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["ProtectHome"] == found["PrivateTmp"] == found["PrivateUsers"] == ["yes"]
    assert found["PrivateDevices"] == found["MemoryDenyWriteExecute"] == ["yes"]
    assert found["SocketBindAllow"] == ["tcp:8642"]
    assert found["ExecStart"][0].startswith(":"), "no variable is replaced in it"
    assert found["Type"] == ["notify"]
    assert found["WantedBy"] == ["multi-user.target"]
    assert found["EnvironmentFile"] == ["-/etc/gigarouter/service.env"]


def test_a_unit_of_a_user_asks_for_nothing_that_a_users_manager_may_not_do():
    found = values(systemd_unit(replace(PLAIN, scope="user")))
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["WantedBy"] == ["default.target"]
    assert not {"DynamicUser", "ProtectSystem", "PrivateUsers", "PrivateTmp"} & set(found)
    assert environment_file("user") == "%E/gigarouter.env"


def test_a_folder_of_a_users_is_served_as_that_user_and_can_be_written():
    chosen = replace(PLAIN, user="ann", data_dir=Path("/home/ann/my data"))
    found = values(systemd_unit(chosen))
    assert found["User"] == ["ann"]
    assert found["ReadWritePaths"] == ['"/home/ann/my data"']
    assert found["ProtectHome"] == ["read-only"]
    assert not {"DynamicUser", "StateDirectory", "ExecStartPre"} & set(found)
    assert data_dir_in(systemd_unit(chosen)) == "/home/ann/my data"
    assert data_dir_in("[Unit]\n") == ""


def test_a_program_in_a_temporary_folder_stays_visible():
    assert "PrivateTmp" not in values(systemd_unit(replace(PLAIN, code=(Path("/tmp/python"),))))


def test_a_low_port_takes_the_right_to_bind_it():
    found = values(systemd_unit(replace(PLAIN, port=443)))
    assert (
        found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    )
    assert "PrivateUsers" not in found


def test_a_graphics_card_is_let_in_and_may_compile():
    found = values(systemd_unit(replace(PLAIN, has_gpu=True)))
    assert found["DevicePolicy"] == ["closed"]
    assert "char-nvidia-uvm rw" in found["DeviceAllow"]
    assert not {"PrivateDevices", "MemoryDenyWriteExecute"} & set(found)


def test_certificates_are_handed_to_a_user_who_may_not_read_them_where_they_lie():
    listening = (("tls.cert", "/etc/my certs/50%.pem"), ("tls.key", "/etc/key.pem"))
    found = values(systemd_unit(replace(PLAIN, listening=listening)))
    assert found["LoadCredential"] == ["tls.cert:/etc/my certs/50%%.pem", "tls.key:/etc/key.pem"]
    assert found["ExecStart"][0].endswith('"--tls-cert" "%d/tls.cert" "--tls-key" "%d/tls.key"')
    found = values(systemd_unit(replace(PLAIN, user="ann", listening=listening)))
    assert "LoadCredential" not in found
    assert found["ExecStart"][0].endswith('"--tls-key" "/etc/key.pem"')


def test_a_unit_says_whose_it_is_in_its_first_line():
    assert systemd_unit(PLAIN).splitlines()[0] == MARK


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain", '"plain"'),
        ("with blank", '"with blank"'),
        ("50%", '"50%%"'),
        ('say "a"', '"say \\"a\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("$HOME", '"$HOME"'),
        ("", '""'),
    ],
)
def test_a_word_is_written_as_systemd_reads_it(word, written):
    assert quoted(word) == written


NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\"),
    min_size=1,
    max_size=20,
) | st.text("a %\"'\\${}#;:*?[]~@-+!", min_size=1, max_size=20).map(lambda name: f"{name}x")


@given(name=NAMES)
def test_a_word_with_any_name_is_one_word(name):
    assert [word.replace("%%", "%") for word in shlex.split(quoted(name))] == [name]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here"
)
@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(name=NAMES, scope=st.sampled_from(["system", "user"]))
def test_systemd_finds_a_program_and_folders_with_any_name(tmp_path, name, scope):
    folder, data = (
        tmp_path / "".join(c for c in f"d{name}" if c not in "'\"\\"),
        tmp_path / f"e{name}",
    )
    for each in (folder, data):
        each.mkdir(exist_ok=True)
    program = folder / "python"
    shutil.copy("/bin/true", program)
    chosen = replace(
        PLAIN,
        scope=scope,
        program=(str(program), "-P"),
        code=(program,),
        data_dir=data,
        user="root" if scope == "system" else "",
    )
    require_plain(chosen)
    unit = tmp_path / "gigarouter.service"
    unit.write_text(systemd_unit(chosen), encoding="utf-8")
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in ended.stderr.splitlines() if "gigarouter" in line]
    assert (ended.returncode, said) == (0, [])
