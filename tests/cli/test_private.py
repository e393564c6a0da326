"""What a server leaves behind: files of its owner alone, no core, and no secret."""

import json
import os
import re
import resource
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from tests.server import EMBED, ROOT

KEY = re.compile(rb"gr-[0-9A-Za-z]{38}")


def everything(server):
    """Every file that the server may have written, with its content."""
    paths = [path for path in server.data_dir.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in (*paths, server.log)}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_every_file_is_its_owners_alone_whatever_the_umask(make_server, umask):
    before = os.umask(umask)
    try:
        server = make_server()
        server.start("--fake")
        key = server.mint()["key"]
        with server.client(key) as client:
            assert client.post("/v1/embeddings", json={"model": EMBED, "input": "a"}).is_success
        with server.admin() as admin:
            assert admin.post("/backup", json={"name": "x.db"}).status_code == 201
        assert server.cli("tls", "make").returncode == 0
        open_to_others = {
            path.relative_to(server.data_dir): oct(path.stat().st_mode)
            for path in (server.data_dir, *server.data_dir.rglob("*"))
            if stat.S_IMODE(path.stat().st_mode) & 0o077
        }
        assert server.stop() == 0
    finally:
        os.umask(before)
    assert open_to_others == {}


def test_a_server_leaves_no_core_and_neither_does_what_it_starts(make_server):
    server = make_server()
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        server.start("--fake")
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    if not Path("/proc/self/limits").exists():
        pytest.skip("limits are read in /proc")
    limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    [line] = [each for each in limits.splitlines() if each.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]
    assert server.stop() == 0


def test_no_key_and_no_token_is_in_anything_that_a_run_writes(make_server):
    server = make_server()
    server.start("--fake", "--log-format", "json")
    minted = server.cli("keys", "mint", "alice", "--credit", "1", "--json")
    key = json.loads(minted.stdout)["key"]
    token = (server.data_dir / "admin.token").read_text().strip()
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for secret in (key, wrong, token):
        for path in (f"/account?key={secret}", f"/v1/{secret}", f"/v1/models/{secret}", "/metrics"):
            httpx2.get(f"{server.url}{path}", headers={"x-api-key": secret})
        httpx2.post(
            f"{server.url}/v1/embeddings",
            headers={"authorization": f"Bearer {secret}"},
            json={"model": secret, "input": "a", "user": secret},
        )
        httpx2.post(
            f"{server.url}/admin/v1/keys",
            headers={"authorization": f"Bearer {token}"},
            json={"name": secret[:20], "credit": "1", "models": [secret]},
        )
    assert server.cli("keys", "rotate", json.loads(minted.stdout)["id"]).returncode == 0
    with server.admin() as admin:
        assert admin.post("/backup", json={"name": "x.db"}).status_code == 201
        log = admin.get("/log").text
    assert server.stop() == 0
    found = {
        path.name: secret
        for path, content in everything(server).items()
        for secret in (key, wrong, token)
        if secret.encode() in content and path.name != "admin.token"
    }
    assert found == {}
    assert not KEY.search(log.encode())
    assert not any(KEY.search(content) for content in everything(server).values())


THROWN = "raise ValueError('Bearer ' + sys.argv[1])"
IN_A_THREAD = f"""
import threading
def work(): {THROWN}
thread = threading.Thread(target=work)
thread.start()
thread.join()
sys.exit(1)
"""


@pytest.mark.parametrize("thrown", [THROWN, IN_A_THREAD], ids=["main", "thread"])
def test_a_traceback_that_quotes_a_secret_is_written_without_it(thrown):
    from appliance.accounts import credential

    key = credential.mint()
    program = f"from appliance.hardening import harden\nharden()\nimport sys\n{thrown}"
    ended = subprocess.run(
        [sys.executable, "-c", program, key], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "ValueError: Bearer gr-[redacted]" in ended.stderr
    assert key not in ended.stderr


@contextmanager
def listening():
    """A server that refuses, and the credentials that it was sent."""
    sent = set()

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self):
            sent.add(self.headers["authorization"])
            self.rfile.read(int(self.headers["content-length"]))
            self.send_error(401)

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("words", "env", "stdin", "is_warned"),
    [
        (("--key", "gr-given"), {}, "", True),
        (("--key", "-"), {}, "gr-given\n", False),
        ((), {"GIGAROUTER_BENCH_KEY": "gr-given"}, "", False),
    ],
    ids=["argument", "standard input", "environment"],
)
def test_bench_takes_a_key_without_showing_it_to_every_user(tmp_path, words, env, stdin, is_warned):
    with listening() as (url, sent):
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "appliance", "bench", "--data-dir", str(tmp_path)),
                *("--url", url, "--seconds", "0.1", "--rounds", "1", "--workloads", "short-1"),
                *words,
            ],
            cwd=ROOT,
            input=stdin,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert sent == {"Bearer gr-given"}
    assert ("`ps`" in ended.stderr) == is_warned
    assert "gr-given" not in ended.stderr + ended.stdout
