"""`models add` as an operator meets it: what it says, what it asks for, and how it is cancelled."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.cli.test_cli import at_once, gigarouter
from tests.cli.test_trials import SLOW, hooked
from tests.decoders import weights, write_decoder
from tests.models import write_tiny_gguf
from tests.server import ROOT


def refused(end):
    assert (end.returncode, end.stdout) == (1, "")
    [line] = end.stderr.splitlines()
    return line


def being_added(data_dir):
    return list((data_dir / "models").glob(".adding-*"))


def wait_until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("with_server", [False, True])
def test_a_taken_id_wants_replace_and_price_and_names_stay(make_server, tmp_path, with_server):
    server = make_server()
    if with_server:
        server.start("--fake")
    one, two = (write_tiny_gguf(tmp_path / f"{seed}/tiny.gguf", seed=seed) for seed in (1, 2))

    def done(*words):
        end = server.cli("models", *words, "--json")
        assert end.returncode == 0, end.stderr
        return json.loads(end.stdout)

    done("add", str(one))
    done("price", "tiny", "--realtime", "0.25")
    done("alias", "tiny", "mine")
    line = refused(server.cli("models", "add", str(two)))
    assert "there is a model tiny already; use --replace or another --id" in line
    again = done("add", str(two), "--replace")
    assert (again["aliases"], again["pricing"]["realtime"]) == (["mine"], 0.25)
    assert done("verify", "mine")["matches"] is True


def test_what_was_assumed_is_said_and_can_be_given(tmp_path):
    data = tmp_path / "data"
    source = write_decoder(tmp_path / "qwen.gguf", weights(seed=1), pooling=None)
    env = {"GIGAROUTER_FAKE_ENGINE": "true"}
    end = gigarouter("models", "add", source, data_dir=data, env=env)
    assert end.returncode == 0, end.stderr
    assert "Note: the file names no pooling: last was taken" in end.stderr
    given = gigarouter(
        "models", "add", source, "--id", "x", "--pooling", "cls", "--json", data_dir=data, env=env
    )
    assert given.returncode == 0, given.stderr
    assert "notes" not in json.loads(given.stdout)


def test_a_repository_takes_no_words_that_are_for_files(tmp_path):
    end = at_once("models", "add", "owner/name", "--pooling", "cls", data_dir=tmp_path / "data")
    assert end.returncode == 2
    assert "--pooling and --replace are for files and folders here" in end.stderr
    assert not (tmp_path / "data").exists()


def test_ctrl_c_during_an_add_leaves_everything_as_it_was(tmp_path):
    data = tmp_path / "data"
    source = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    command = [sys.executable, "-m", "appliance", "models", "add", str(source)]
    adding = subprocess.Popen(
        [*command, "--data-dir", str(data)],
        cwd=ROOT,
        env={**os.environ, **hooked(tmp_path, SLOW)},  # the trial would be over too soon
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: being_added(data) or adding.poll() is not None)
        os.kill(adding.pid, signal.SIGINT)
        said, errors = adding.communicate(timeout=100)
    finally:
        adding.kill()
        adding.wait()
    assert adding.returncode != 0
    assert said == ""
    assert "Traceback" not in errors
    assert being_added(data) == []
    assert list((data / "models").glob("*.gguf")) == []
    listed = gigarouter("models", "show", "tiny", data_dir=data)
    assert "There is no model 'tiny'" in refused(listed)


def test_who_hangs_up_on_an_add_finds_everything_as_it_was(make_server, tmp_path):
    server = make_server()
    server.start(env=hooked(tmp_path, SLOW))
    source = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    token = (server.data_dir / "admin.token").read_text().strip()
    note = server.data_dir / "incoming" / ("0" * 32)
    note.symlink_to(source)
    order = json.dumps({"path": str(source), "note": note.name})
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            f"POST /admin/v1/models HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n"
            f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(order)}\r\n\r\n{order}".encode()
        )
        wait_until(lambda: being_added(server.data_dir))
    wait_until(lambda: not being_added(server.data_dir))
    listed = server.cli("models", "list", "--json")
    assert "tiny" not in [each["id"] for each in json.loads(listed.stdout)["data"]]
    assert list((server.data_dir / "models").glob("*.gguf")) == []
