"""`models add` as an operator meets it: what it says, what it asks for, and how it is cancelled."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.cli.test_cli import gigarouter
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


PAUSED = """
import sys
if "appliance.engine.preflight" in sys.orig_argv:
    import time
    time.sleep(1.5)
"""


@pytest.mark.parametrize("with_server", [True, False])
def test_an_add_says_its_stages_on_standard_error_and_its_document_alone_on_standard_output(
    make_server, tmp_path, with_server
):
    server, env = make_server(), hooked(tmp_path, PAUSED)  # or its trial would be over too soon
    if with_server:
        server.start(env=env)
    source = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    end = gigarouter("models", "add", source, "--json", data_dir=server.data_dir, env=env)
    assert end.returncode == 0, end.stderr
    assert json.loads(end.stdout)["id"] == "tiny"
    assert "tiny: trying" in end.stderr.splitlines()
    again = gigarouter(
        "models", "add", source, "--id", "bad", "--task", "rerank", data_dir=server.data_dir
    )
    refused(again)  # in one line: it was refused before anything was done


def test_a_terminal_has_one_line_that_is_rewritten(tmp_path):
    source = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    env = {**os.environ, **hooked(tmp_path, PAUSED), "COLUMNS": "30"}
    ours, theirs = pty.openpty()
    try:
        end = subprocess.run(
            [
                *(sys.executable, "-m", "appliance", "models", "add", str(source)),
                *("--data-dir", str(tmp_path / "data"), "--json"),
            ],
            cwd=ROOT,
            env=env,
            stderr=theirs,
            stdout=subprocess.PIPE,
            timeout=100,
            check=True,
        )
        said = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert json.loads(end.stdout)["id"] == "tiny"
    assert "tiny: trying" in said
    *drawn, last = said.split("\r\x1b[K")
    assert last == ""  # nothing stays
    assert all(len(line) < 30 for line in drawn)
    assert "\n" not in said


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
