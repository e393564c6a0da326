"""The real thing in a real terminal: typed at, looked at, killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import pytest

from appliance.client.local_server import LocalServer
from tests.server import ROOT, free_port

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux here")


class Terminal:
    """A tmux session of 100 by 32."""

    def __init__(self, folder, environment):
        self.name = f"gigarouter-{uuid.uuid4().hex[:8]}"
        self.socket = folder / "tmux"
        settings = [f"-e{name}={value}" for name, value in environment.items()]
        self.tmux("new-session", "-d", "-s", self.name, "-x", "100", "-y", "32", *settings, "sh")

    def tmux(self, *arguments):
        return subprocess.run(
            ["tmux", "-S", str(self.socket), *arguments], check=True, capture_output=True, text=True
        ).stdout

    def type(self, *keys):
        self.tmux("send-keys", "-t", self.name, *keys)

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", self.name)

    def until(self, text, seconds=60, *, absent=False):
        deadline = time.monotonic() + seconds
        while (text in self.screen()) is absent:
            assert time.monotonic() < deadline, self.screen()
            time.sleep(0.1)
        return self.screen()

    def close(self):
        self.tmux("kill-server")


@pytest.fixture
def terminal(tmp_path):
    environment = {
        "GIGAROUTER_DATA_DIR": tmp_path / "data",
        "GIGAROUTER_PORT": free_port(),
        "GIGAROUTER_FAKE_ENGINE": "true",
        "GIGAROUTER_ENGINE_CALIBRATE": "false",
        "PYTHONPATH": ROOT,
        "TERM": "xterm-256color",
        "COLUMNS": "",
        "LINES": "",
    }
    made = Terminal(tmp_path, environment)
    made.server = LocalServer(tmp_path / "data")
    yield made
    note = made.server.note()
    if note is not None:
        os.kill(note.pid, signal.SIGKILL)
    made.close()


def test_the_first_minute_typed_by_hand(terminal):
    terminal.type(f"{sys.executable} -m appliance; echo over", "Enter")
    terminal.until("Mint a key and try it")
    terminal.type("Enter")
    shown = terminal.until("$0.0")
    assert "gr-" in shown
    assert "curl" in shown
    terminal.type("Enter")
    terminal.until("Welcome to gigarouter", absent=True)
    assert "tokens/s" in terminal.until("200 ok")
    terminal.type("2")
    terminal.until("Qwen/Qwen3-Embedding-0.6B")
    terminal.type("3")
    terminal.until("unlimited")
    terminal.type("m")
    terminal.until("Mint a key")
    terminal.type("alice", "Enter")
    terminal.until("shown this once")
    terminal.type("Escape")
    terminal.until("shown this once", absent=True)
    terminal.until("alice")
    terminal.type("Down")
    terminal.type("r")
    terminal.until("This cannot be undone")
    terminal.type("y")
    terminal.until("1 revoked (a)")
    terminal.type("a")
    terminal.until("revoked  ")
    terminal.type("5")
    terminal.until("there is a live key")
    terminal.until("listening on")
    terminal.type("q")
    terminal.until("Leave it running")
    terminal.type("s")
    terminal.until("over")
    deadline = time.monotonic() + 30
    while terminal.server.note() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert terminal.server.note() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_terminal_is_as_it_was_after_the_console_is_killed(terminal, number):
    terminal.type(f"{sys.executable} -m appliance console; echo over", "Enter")
    terminal.until("Welcome to gigarouter")
    listed = subprocess.run(
        ["pgrep", "-f", "--", f"-m tui --data-dir {terminal.server.data_dir}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for pid in listed:
        os.kill(int(pid), number)
    terminal.until("over")
    terminal.type("echo it is $((40 + 2))", "Enter")
    shown = terminal.until("it is 42")
    assert "Welcome" not in shown
    alternate = terminal.tmux("display-message", "-p", "-t", terminal.name, "#{alternate_on}")
    assert alternate.strip() == "0"
