"""A file whose own words would steer the terminal: no command passes them on."""

import unicodedata

import gguf
import pytest
import tomlkit

from appliance.cli import printing
from appliance.wire.doctor import Finding, Report
from tests.cli.test_cli import at_once, gigarouter
from tests.models import write_tiny_gguf

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\u2028fake: all is well"
STEERING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def steers(text):
    return [
        letter for letter in text if letter != "\n" and unicodedata.category(letter) in STEERING
    ]


def hostile_gguf(path, *, architecture=f"bert{HOSTILE}", key="general.license"):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string(key, HOSTILE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "changes",
    [{}, {"key": f"tokenizer{HOSTILE}"}, {"architecture": HOSTILE}],
    ids=["an architecture", "a key", "nothing else"],
)
def test_why_a_file_is_refused_is_shown_without_steering(tmp_path, changes):
    file = hostile_gguf(tmp_path / f"m{HOSTILE[-8:]}.gguf", **changes)
    end = at_once("models", "add", file, "--id", "mine/x", data_dir=tmp_path / "data")
    assert end.returncode == 1
    assert steers(end.stdout + end.stderr) == []
    assert len(end.stderr.splitlines()) == 1


def test_a_models_own_words_are_shown_in_lists_and_facts_without_steering(tmp_path):
    data = tmp_path / "data"
    made = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    assert at_once("models", "add", made, "--id", "mine/tiny", data_dir=data).returncode == 0
    entries = tomlkit.parse((data / "models.toml").read_text())
    entries["model"][0]["license"] = entries["model"][0]["description"] = HOSTILE
    (data / "models.toml").write_text(tomlkit.dumps(entries))
    end = at_once("models", "show", "mine/tiny", data_dir=data)
    assert end.returncode == 0, end.stderr
    assert steers(end.stdout + end.stderr) == []
    assert "\\x1b]0;owned\\x07" in end.stdout


def test_findings_of_doctor_are_shown_without_steering(capsys):
    found = Finding("models", "warn", f"mine/x: {HOSTILE}", f"remove {HOSTILE}")
    printing.health(Report(healthy=True, data=[found]))
    assert steers(capsys.readouterr().out) == []


def test_doctor_shows_what_keeps_a_server_from_starting_without_steering(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "models.toml").write_text(
        f'schema = 1\n[[model]]\nid = "{"x" * 3}"\n"a\\u001b[2J" = 1\n'
    )
    end = gigarouter("doctor", data_dir=data)
    assert end.returncode == 1
    assert steers(end.stdout + end.stderr) == []
