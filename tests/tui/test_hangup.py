"""A console whose terminal is closed ends; it does not stay and spin."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest

OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def console(tmp_path):
    """A console in a terminal of its own, and the other end of that terminal."""
    (tmp_path / "token").write_text("token")
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            OWN_TERMINAL,
            "-m",
            "tui",
            "--data-dir",
            str(tmp_path),
            "--url",
            "http://127.0.0.1:1",
            "--token-file",
            str(tmp_path / "token"),
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    yield process, ours
    process.kill()
    process.wait(30)


def test_a_console_ends_soon_after_its_terminal_was_closed(console):
    process, terminal = console
    drawn = b""
    deadline = time.monotonic() + 60
    while b"does not answer" not in drawn:
        assert time.monotonic() < deadline, drawn[-500:]
        drawn += os.read(terminal, 65536)
    os.close(terminal)
    process.wait(20)
