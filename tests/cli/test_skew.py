"""A command and a server of different versions: said once, and the command goes on."""

import json

import pytest

from appliance.core.version import program_version, skew


@pytest.mark.parametrize(("version", "said"), [("9.9", "is 9.9,"), (None, "is older,")])
def test_a_server_of_another_version_is_said_and_asked_all_the_same(make_server, version, said):
    server = make_server().start("--fake")
    server.mint("anna")
    note = server.data_dir / "server.json"
    told = json.loads(note.read_text())
    assert told["version"] == program_version()
    assert server.cli("keys", "list").stderr == ""
    del told["version"]
    note.write_text(json.dumps(told | ({"version": version} if version else {})))
    done = server.cli("keys", "list")
    assert done.returncode == 0
    assert "anna" in done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"gigarouter: the server that runs {said} and this is ")
    assert "restart it with this version" in line


def test_the_same_version_is_not_worth_a_word():
    assert skew("1.2", "1.2") == ""
    assert "is older" in skew("", "1.2")
