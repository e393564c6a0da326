"""Trials as an operator meets them: commands, a server that stops meanwhile, a model that is replaced."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from appliance.store import digests
from appliance.wire.models import AddModelOrder
from tests import decoders
from tests.appliance import bench
from tests.models import write_tiny_gguf
from tests.server import ROOT, Server

SLOW = """
import sys
if "appliance.engine.preflight" in sys.orig_argv:
    import time
    time.sleep(600)
"""
CRASHES = """
import sys
if "appliance.engine.preflight" in sys.orig_argv:
    import os, signal
    class Hook:
        def find_spec(self, name, *_):
            if name == "appliance.engine.llama.weights":
                sys.stderr.write("ggml: an assertion failed\\n")
                sys.stderr.flush()
                os.kill(os.getpid(), signal.SIGSEGV)
    sys.meta_path.insert(0, Hook())
"""


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path / "data")
    yield made
    made.close()


def hooked(tmp_path, code):
    """The environment in which a trial's process, and no other, runs some code first."""
    folder = tmp_path / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def added(server, tmp_path, name="m", *, flags=(), **options):
    path = write_tiny_gguf(tmp_path / f"{name}.gguf", **{"seed": 1, **options})
    end = server.cli("models", "add", str(path), "--id", name, *flags)
    assert end.returncode == 0, end.stderr


def forget_trials(server):
    for record in (server.data_dir / "models" / "trials").iterdir():
        record.unlink()


@pytest.mark.parametrize("is_running", [False, True], ids=["alone", "with a server"])
def test_a_model_is_tried_again_with_long_sequences(server, tmp_path, is_running):
    if is_running:
        server.start()
    shape = decoders.Shape(context=2048, blocks=1)
    path = decoders.write_decoder(tmp_path / "long.gguf", decoders.weights(shape, seed=1), shape)
    assert server.cli("models", "add", str(path), "--id", "m").returncode == 0
    shown = json.loads(server.cli("models", "show", "m", "--json").stdout)
    assert shown["trial"]["reason"] is None
    assert shown["trial"]["lengths"] == []
    end = server.cli("models", "try", "m", "--long")
    assert end.returncode == 0, end.stderr
    assert "2,048 tokens" in end.stdout
    lengths = json.loads(server.cli("models", "show", "m", "--json").stdout)["trial"]["lengths"]
    assert [each["tokens"] for each in lengths] == [128, 256, 512, 1024, 2048]
    assert all(each["seconds"] >= 0 and each["peak_bytes"] > 10**7 for each in lengths)
    again = json.loads(server.cli("models", "try", "m", "--json").stdout)
    assert [each["tokens"] for each in again["lengths"]] == [128, 256, 512, 1024, 2048]


def test_a_file_that_crashes_says_so_with_its_last_words(server, tmp_path):
    added(server, tmp_path)
    forget_trials(server)
    server.start(env=hooked(tmp_path, CRASHES))
    with server.client() as client:
        order = {"model": "m", "input": "a"}
        refused = client.post("/v1/embeddings", json=order, headers={"Prefer": "wait=30"})
    assert refused.status_code == 404
    assert "SIGSEGV" in refused.json()["error"]["message"]
    shown = server.cli("models", "show", "m")
    assert "an assertion failed" in shown.stdout
    assert "gigarouter models try m" in server.cli("doctor").stdout
    server.stop()
    server.start()  # without what made it crash, and with what was found then
    assert "SIGSEGV" in server.cli("models", "show", "m").stdout
    assert server.cli("models", "try", "m").returncode == 0
    with server.client() as client:
        answer = client.post("/v1/embeddings", json=order, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text


def test_a_model_that_is_tried_is_warming_and_other_models_answer(server, tmp_path):
    added(server, tmp_path)
    forget_trials(server)
    server.start(env=hooked(tmp_path, SLOW))
    with server.client() as client:
        order = {"model": "m", "input": "a"}
        refused = client.post("/v1/embeddings", json=order)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_warming"
        assert int(refused.headers["retry-after"]) >= 1
        with server.admin() as admin:
            [engine] = [e for e in admin.get("/engines").json()["data"] if e["model"] == "m"]
        assert engine["state"] == "trying"
        assert engine["step"]
        starter = {"model": "all-minilm-l6-v2", "input": ["some words " * 60] * 4}
        assert client.post("/v1/embeddings", json=starter).status_code == 200

        answers = []
        headers = {"Prefer": "wait=60"}
        waiting = threading.Thread(
            target=lambda: answers.append(
                client.post("/v1/embeddings", json=order, headers=headers)
            )
        )
        waiting.start()
        time.sleep(1)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20, "it did not wait for the trial"
        waiting.join(20)
    assert [answer.status_code for answer in answers] == [503]
    assert "retry-after" in answers[0].headers


def test_a_replaced_model_leaves_and_is_counted_once(server, tmp_path):
    added(server, tmp_path)
    server.start()
    order = {"model": "m", "input": "some words"}
    with server.client() as client, server.admin() as admin:
        headers = {"Prefer": "wait=60"}
        first = client.post("/v1/embeddings", json=order, headers=headers)
        added(server, tmp_path, seed=2, flags=["--replace"])
        second = client.post("/v1/embeddings", json=order, headers=headers)
        assert (first.status_code, second.status_code) == (200, 200), second.text
        assert first.json()["data"] != second.json()["data"]
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            engines = [e for e in admin.get("/engines").json()["data"] if e["model"] == "m"]
            if len(engines) == 1:
                break
            time.sleep(0.1)
        assert [engine["state"] for engine in engines] == ["loaded"]
        token = (server.data_dir / "admin.token").read_text().strip()
        lines = client.get("/metrics", headers={"authorization": f"Bearer {token}"}).text
        series = [line.rpartition(" ")[0] for line in lines.splitlines() if line[:1] != "#"]
        assert len(series) == len(set(series))
        assert any('model="m"' in each for each in series)


@pytest.mark.parametrize("is_running", [False, True], ids=["alone", "with a server"])
def test_ctrl_c_ends_a_trial_that_was_asked_for_and_its_process(server, tmp_path, is_running):
    added(server, tmp_path)
    mark = tmp_path / "pid"
    hook = hooked(
        tmp_path,
        SLOW.replace(
            "import time", f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid()))"
        ),
    )
    if is_running:
        server.start(env=hook)
    command = [sys.executable, "-m", "appliance", "models", "try", "m", "--long"]
    asked = subprocess.Popen(
        [*command, "--data-dir", str(server.data_dir)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **hook},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (mark.exists() and mark.read_text()):
            assert asked.poll() is None, asked.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int(mark.read_text())
        asked.send_signal(signal.SIGINT)
        _, complaint = asked.communicate(timeout=60)
    finally:
        asked.kill()
    assert asked.returncode not in (0, 2)
    assert "Traceback" not in complaint
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if is_running:
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
    shown = json.loads(server.cli("models", "show", "m", "--json").stdout)
    assert shown["trial"]["reason"] is None  # what was known before stays


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_model_file_is_hashed_once_from_its_addition_to_its_answer(tmp_path, monkeypatch):
    read = []
    original = digests.sha256_of

    def noted(path, progress=None):
        read.append(path.name)
        return original(path, progress)

    monkeypatch.setattr(digests, "sha256_of", noted)

    async def story():
        path = write_tiny_gguf(tmp_path / "m.gguf", seed=1)
        async with bench(
            tmp_path / "data", preload=False, fake_engine=False, engine={"calibrate": False}
        ) as on:
            await on.appliance.admin.models.add(AddModelOrder(path=str(path), id="m"))
            answer = await on.client.post(
                "/v1/embeddings",
                json={"model": "m", "input": "a"},
                headers={**await on.key(), "prefer": "wait=60"},
            )
            assert answer.status_code == 200, answer.text

    asyncio.run(story())
    assert len(read) <= 1


SLOW_STEPS = """
import sys
if "appliance.engine.preflight" in sys.orig_argv:
    import time
    import msgspec
    encode = msgspec.json.encode
    def slow(told, **options):
        if getattr(told, "length", None) is not None:
            time.sleep(0.5)
        return encode(told, **options)
    msgspec.json.encode = slow
"""


@pytest.mark.parametrize("is_running", [False, True], ids=["alone", "with a server"])
def test_each_length_is_said_as_soon_as_it_is_known(server, tmp_path, is_running):
    shape = decoders.Shape(context=512, blocks=1)
    path = decoders.write_decoder(tmp_path / "long.gguf", decoders.weights(shape, seed=1), shape)
    assert server.cli("models", "add", str(path), "--id", "m").returncode == 0
    env = hooked(tmp_path, SLOW_STEPS)
    if is_running:
        server.start(env=env)
    command = [sys.executable, "-m", "appliance", "models", "try", "m", "--long", "--json"]
    with subprocess.Popen(
        [*command, "--data-dir", str(server.data_dir)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    ) as asked:
        first = asked.stderr.readline()
        was_running = asked.poll() is None
        rest, document = asked.stderr.read(), asked.stdout.read()
    assert asked.returncode == 0, rest
    assert first.startswith("128 tokens: ")
    assert first.endswith(" MB\n")
    assert was_running
    assert rest.startswith("256 tokens: ")
    assert [each["tokens"] for each in json.loads(document)["lengths"]] == [128, 256, 512]
