"""The property list as launchd reads it."""

import plistlib
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.service.plist import data_dir_of, launchd_plist
from tests.unit.service.test_definition import PLAIN

ODD = replace(PLAIN, scope="user", data_dir=Path('/Users/ann/Library/a & "b" <c>'))


def test_a_job_is_loaded_at_login_and_started_again_when_it_died():
    found = plistlib.loads(launchd_plist(ODD))
    assert found["Label"] == "gigarouter"
    assert found["RunAtLoad"] is True
    assert found["KeepAlive"] == {"Crashed": True}
    assert found["ProgramArguments"] == ODD.command()
    assert found["StandardErrorPath"] == '/Users/ann/Library/a & "b" <c>/logs/server.log'
    assert found["Umask"] == 0o077
    assert "UserName" not in found


def test_a_job_of_the_machine_has_a_user():
    assert plistlib.loads(launchd_plist(replace(PLAIN, user="ann")))["UserName"] == "ann"


def test_the_data_directory_is_read_back():
    assert data_dir_of(launchd_plist(ODD)) == '/Users/ann/Library/a & "b" <c>'


@pytest.mark.parametrize(
    "content", [b"", b"no list", b"<plist", plistlib.dumps({}), plistlib.dumps([])]
)
def test_a_list_that_is_not_of_ours_names_none(content):
    assert data_dir_of(content) == ""
