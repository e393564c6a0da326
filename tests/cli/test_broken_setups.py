"""The doctor on set-ups that are broken for real: each is named, in one line, with its fix."""

import json
import os
import socket
import subprocess
import sys

import pytest

from appliance.settings import CONFIG_FILE
from tests.models import write_tiny_gguf
from tests.server import EMBED, ROOT


def gigarouter(data_dir, *arguments, environment=None, limits=""):
    command = [sys.executable, "-m", "appliance", *map(str, arguments), "--data-dir", str(data_dir)]
    if limits:
        command = ["sh", "-c", f'{limits}; exec "$@"', "sh", *command]
    return subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def found_in(data_dir, **options):
    done = gigarouter(data_dir, "doctor", "--json", **options)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["healthy"] else 1)
    wrong = [each for each in report["data"] if each["status"] != "ok"]
    assert all(each["fix"] and "\n" not in each["said"] for each in wrong)
    return {each["name"]: each for each in wrong}


@pytest.fixture
def data(tmp_path):
    """A data directory as it is after a first key."""
    folder = tmp_path / "data"
    done = gigarouter(folder, "keys", "mint", "anna", "--credit", "1")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_good_one_has_nothing_to_mend(data):
    assert found_in(data) == {}


def config(text):
    return lambda data: (data / CONFIG_FILE).write_text(text)


def garbage(data):
    (data / "gigarouter.db").write_bytes(b"no books at all, and long enough to be none" * 100)


def damaged_page(data):
    path = data / "gigarouter.db"
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    path.write_bytes(content)


def newer(data):
    from appliance.ledger.schema import MIGRATIONS
    from appliance.store.database import connect

    later = (*MIGRATIONS, ("m999_from_the_future", lambda _: None))
    connect(data / "gigarouter.db", later).close()


def older_books(data):
    """Books of before, put there by hand beside the guard of the ones that were there."""
    saved = (data / "gigarouter.db").read_bytes()
    assert gigarouter(data, "keys", "mint", "bert", "--credit", "1").returncode == 0
    for side in ("-wal", "-shm"):
        (data / f"gigarouter.db{side}").unlink(missing_ok=True)
    (data / "gigarouter.db").write_bytes(saved)


def truncated_model(data):
    path = write_tiny_gguf(data.parent / "mine.gguf", seed=1)
    added = gigarouter(data, "models", "add", path, "--id", "x/mine", "--task", "embeddings")
    assert added.returncode == 0, added.stderr
    [copy] = (data / "models").glob("*.gguf")
    copy.write_bytes(copy.read_bytes()[:-100])


def vanished_model(data):
    truncated_model(data)
    [copy] = (data / "models").glob("*.gguf")
    copy.unlink()


def open_to_all(data):
    (data / "admin.token").touch(mode=0o600)
    (data / "admin.token").chmod(0o644)


def linked_token(data):
    (data / "admin.token").unlink(missing_ok=True)
    (data / "admin.token").symlink_to("/etc/hostname")


SETUPS = {
    "an unknown setting": (
        config("prot = 8642\n"),
        "start",
        "config.toml: settings: Object contains unknown field `prot`",
        "",
    ),
    "a setting of the wrong kind": (config("port = 'x'\n"), "start", "port", ""),
    "settings that are no TOML": (config("port = \n"), "start", "config.toml", ""),
    "a host that is none": (
        config("host = 'no-such-host.invalid'\n"),
        "network",
        "no-such-host",
        "host",
    ),
    "an open host without TLS": (
        config("host = '0.0.0.0'\n"),
        "network",
        "without TLS",
        "tls make",
    ),
    "certificates that are not there": (
        config("host = '0.0.0.0'\n[tls]\ncert = '/absent/c.pem'\nkey = '/absent/k.pem'\n"),
        "network",
        "/absent/c.pem",
        "tls",
    ),
    "a database that is none": (garbage, "start", "gigarouter.db", ""),
    "a database with a damaged page": (damaged_page, "start", "is damaged", ""),
    "books of a newer version": (newer, "start", "newer", ""),
    "books of before": (older_books, "start", "restore a backup with: gigarouter restore FILE", ""),
    "a catalogue that is no TOML": (
        lambda data: (data / "models.toml").write_text("[[model]\n"),
        "models",
        "models.toml",
        "",
    ),
    "a model that was cut off": (truncated_model, "models", "ends at byte", "models remove x/mine"),
    "a model that is gone": (
        vanished_model,
        "models",
        "is not on this machine",
        "put the whole file back",
    ),
    "a token that others may read": (open_to_all, "files", "admin.token", "chmod"),
    "a token that is a link": (linked_token, "files", "admin.token", ""),
}


@pytest.mark.parametrize("name", SETUPS)
def test_what_is_broken_is_named_with_its_fix(data, name):
    break_it, finding, said, fix = SETUPS[name]
    break_it(data)
    found = found_in(data)
    assert finding in found, found
    assert said in found[finding]["said"]
    assert fix in found[finding]["fix"]
    assert found[finding]["fix"]


def test_an_engine_that_cannot_be_loaded_is_named(data, tmp_path):
    found = found_in(data, environment={"LLAMA_CPP_LIB_PATH": str(tmp_path)})
    assert "cannot be loaded" in found["engine"]["said"]
    assert found["engine"]["fix"] == "gigarouter engine install"


def test_too_few_open_files_are_named(data):
    found = found_in(data, limits="ulimit -n 256")
    assert "256" in found["open files"]["said"]
    assert "ulimit -n" in found["open files"]["fix"]


def test_variables_that_an_orchestrator_set_are_named(data):
    found = found_in(data, environment={"GIGAROUTER_PORT": "tcp://10.0.0.1:8642"})
    assert "GIGAROUTER_PORT" in found["environment"]["said"]


def test_a_port_that_another_program_has_is_named(data):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = gigarouter(data, "serve", "--fake", "--port", port)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()[-1:]
    assert str(port) in line
    assert EMBED not in line
