"""A server is found by its lock, and no process is stopped that is not it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from appliance.client import local_server as module
from appliance.client.errors import DidNotStart, DidNotStop
from appliance.client.local_server import LocalServer
from appliance.client.process import ProcessHandle, command_line
from appliance.core.process_end import end_of
from appliance.store import datadir
from appliance.store.datadir import DataDir, ServerNote
from tests.server import ROOT, Server, free_port

HOLDER = """
import fcntl, json, os, signal, sys, time
if "deaf" in sys.argv[2]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = sys.argv[1]
handle = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
os.write(handle, f"{os.getpid()}\\n".encode())
with open(folder + "/server.json", "w") as note:
    json.dump({"url": "http://127.0.0.1:1", "pid": os.getpid(), "started": ""}, note)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    DataDir(tmp_path / "data").create()
    DataDir(tmp_path / "data").admin_token()
    return tmp_path / "data"


@pytest.fixture
def stranger():
    """A process of somebody else."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait(10)


@contextmanager
def holder(folder, how="plain"):
    """A process that owns the directory, as a server does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.stdout.close()
    with suppress(ChildProcessError):
        process.wait(10)


def note_of(pid, folder):
    (folder / "server.json").write_text(
        json.dumps({"url": "http://127.0.0.1:1", "pid": pid, "started": ""})
    )
    return ServerNote("http://127.0.0.1:1", pid, "")


def died(pid):
    """Wait until a child is dead, and do not reap it."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


# -- found ---------------------------------------------------------------------------------------


def test_a_server_is_the_process_that_holds_the_lock_and_is_gone_with_it(folder):
    with holder(folder) as process:
        server = LocalServer(folder)
        assert server.note().pid == process.pid == DataDir(folder).owner()
        process.kill()
        process.wait(10)
        assert server.note() is None
        assert DataDir(folder).owner() is None


def test_a_note_with_a_strangers_pid_is_no_server(folder, stranger):
    note = note_of(stranger.pid, folder)
    server = LocalServer(folder)
    assert server.note() is None
    asyncio.run(server.stop(note))
    assert stranger.poll() is None


def test_a_recycled_pid_is_no_server_though_note_and_lock_name_it(folder, stranger):
    """What a server leaves behind that was killed, when its pid was given out again."""
    note = note_of(stranger.pid, folder)
    (folder / "lock").write_text(f"{stranger.pid}\n")
    server = LocalServer(folder)
    assert server.note() is None
    asyncio.run(server.stop(note))
    assert stranger.poll() is None


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel names no holders here")
def test_the_kernels_word_counts_where_the_file_names_a_stranger(folder, stranger):
    with holder(folder) as process:
        note = note_of(stranger.pid, folder)
        (folder / "lock").write_text(f"{stranger.pid}\n")
        assert DataDir(folder).owner() == process.pid
        assert LocalServer(folder).note() is None
        asyncio.run(LocalServer(folder).stop(note))
        assert stranger.poll() is None
        assert process.poll() is None


@pytest.mark.parametrize("lines", [None, "", "1: POSIX  ADVISORY  WRITE 1 00:01:2 0 EOF\n", "x\n"])
def test_where_the_kernel_says_nothing_the_file_is_believed_while_it_is_locked(
    folder, monkeypatch, tmp_path, lines
):
    told = tmp_path / "locks"
    if lines is not None:
        told.write_text(lines)
    monkeypatch.setattr(datadir, "LOCKS", told)
    with holder(folder) as process:
        assert LocalServer(folder).note().pid == process.pid
    assert LocalServer(folder).note() is None


def in_a_container(folder, pid=1):
    content = {"url": "http://127.0.0.1:1", "pid": pid, "started": "", "pid_namespace": "pid:[1]"}
    (folder / "server.json").write_text(json.dumps(content))


def test_a_server_in_a_container_is_found_by_its_lock_and_not_stopped_from_outside(folder):
    with holder(folder) as process:
        in_a_container(folder)
        server = LocalServer(folder)
        found = server.note()
        assert found.pid == 1
        assert server.description(found) == "process 1 of a container"
        for named in (None, found):
            with pytest.raises(DidNotStop, match="process 1 of a container"):
                asyncio.run(server.stop(named))
        assert process.poll() is None
    assert server.note() is None


def test_the_note_of_a_server_that_was_killed_is_gone_with_the_next_lock(folder):
    in_a_container(folder)
    with DataDir(folder).locked():
        assert LocalServer(folder).note() is None
    assert not (folder / "server.json").exists()


def test_a_command_that_owns_the_directory_is_no_server(folder):
    note_of(os.getpid() + 1, folder)
    with DataDir(folder).locked():
        assert DataDir(folder).owner() == os.getpid()
        assert LocalServer(folder).note() is None


def test_a_zombie_is_no_server(folder):
    with holder(folder) as process:
        process.kill()
        died(process.pid)
        os.kill(process.pid, 0)
        assert LocalServer(folder).note() is None


@pytest.mark.parametrize("content", ["", "x", "[]", '{"url": 1}', '{"url": "u", "pid": "1"}'])
def test_a_note_that_says_nothing_is_no_server(folder, content):
    (folder / "server.json").write_text(content)
    with DataDir(folder).locked():
        assert LocalServer(folder).note() is None


# -- stopped -------------------------------------------------------------------------------------


def test_a_server_that_was_not_started_here_is_stopped_only_when_it_is_named(folder):
    with holder(folder) as process:
        server = LocalServer(folder)
        with pytest.raises(DidNotStop, match=f"process {process.pid} .*python"):
            asyncio.run(server.stop())
        with pytest.raises(DidNotStop):
            asyncio.run(server.stop(ServerNote("http://127.0.0.1:1", process.pid + 1, "")))
        assert process.poll() is None
        assert not server.is_ours()
        asyncio.run(server.stop(server.note()))
        assert process.wait(10) == -signal.SIGTERM


def test_a_server_that_does_not_end_is_said_after_a_bounded_wait(folder, monkeypatch):
    monkeypatch.setattr(module, "STOP_S", 0.5)
    with holder(folder, "deaf") as process:
        server = LocalServer(folder)
        began = time.monotonic()
        with pytest.raises(DidNotStop, match=f"process {process.pid} .*still runs.*kill -9"):
            asyncio.run(server.stop(server.note()))
        assert time.monotonic() - began < 10
        assert process.poll() is None


def test_a_pid_that_is_recycled_between_the_look_and_the_signal_is_spared(stranger):
    answers = iter([False])
    with ProcessHandle(stranger.pid, lambda: next(answers)) as process:
        assert process.terminate() is False
    assert stranger.poll() is None


def test_without_pidfds_a_second_look_decides(stranger, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    lives = {"there": True}
    with ProcessHandle(stranger.pid, lambda: lives["there"]) as process:
        assert not process.is_over()
        lives["there"] = False
        assert process.terminate() is False
        assert process.is_over()
        assert stranger.poll() is None
        lives["there"] = True
        assert process.terminate() is True
    assert stranger.wait(10) == -signal.SIGTERM


def test_a_process_that_waits_to_be_reaped_is_over(stranger):
    with ProcessHandle(stranger.pid, lambda: True) as process:
        assert process.terminate()
        died(stranger.pid)
        assert process.is_over()


def test_a_process_is_described_by_its_command_line(stranger):
    deadline = time.monotonic() + 60
    while command_line(stranger.pid) != "sleep 60":  # it has no name of its own before its exec
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert command_line(2**22 + 5) == ""
    assert end_of(-9) == "was ended by SIGKILL"
    assert end_of(3) == "ended with exit code 3"


# -- started -------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setenv("GIGAROUTER_FAKE_ENGINE", "true")
    monkeypatch.setenv("GIGAROUTER_PORT", str(free_port()))


async def eventually(true):
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - no event says that a process ended
            await asyncio.sleep(0.02)


def test_a_server_is_started_found_killed_said_once_and_started_again(folder, quick):
    async def story():
        server = LocalServer(folder)
        note = await server.start()
        assert server.is_ours()
        assert server.note() == note
        assert server.unexpected_end() is None
        assert not LocalServer(folder).is_ours()
        server.started.kill()
        await asyncio.to_thread(died, note.pid)
        await eventually(lambda: server.note() is None)  # the server follows its supervisor
        said = f"the server (process {note.pid}) was ended by SIGKILL"
        assert server.unexpected_end() == said
        assert server.unexpected_end() is None
        with pytest.raises(ProcessLookupError):  # reaped
            os.kill(note.pid, 0)
        again = await server.start()
        assert again.pid != note.pid
        await server.stop()
        assert server.started.returncode == 0
        assert server.unexpected_end() is None  # it was asked to end
        assert server.note() is None

    asyncio.run(story())


def test_a_server_that_cannot_start_says_why(folder, quick):
    (folder / "config.toml").write_text("port = 'x'\n")

    async def story():
        server = LocalServer(folder)
        with pytest.raises(DidNotStart, match=r"config.toml.*exit code 1"):
            await server.start()
        assert server.unexpected_end() is None
        assert not server.is_ours()

    asyncio.run(story())


# -- commands ------------------------------------------------------------------------------------


IMPATIENT = """
from appliance.cli.main import main
from appliance.client import caller
caller.PATIENCE_S = 2.0
main()
"""


def command(folder, *arguments, cwd=ROOT, program=("-m", "appliance")):
    return subprocess.run(
        [sys.executable, "-P", *program, *arguments, "--data-dir", str(folder)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_commands_work_without_a_server_beside_a_strangers_note_and_spare_it(folder, stranger):
    note_of(stranger.pid, folder)
    (folder / "lock").write_text(f"{stranger.pid}\n")
    for arguments in (("keys", "mint", "a"), ("keys", "list"), ("doctor",)):
        done = command(folder, *arguments)
        assert done.returncode == 0, done.stderr
    assert stranger.poll() is None


def test_a_server_that_hangs_is_one_clear_line_of_a_command(tmp_path):
    server = Server(tmp_path / "data").start("--fake")
    try:
        server.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        done = command(server.data_dir, "keys", "list", program=("-c", IMPATIENT))
        took_s = time.monotonic() - began
    finally:
        server.process.send_signal(signal.SIGCONT)
        server.close()
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"gigarouter: the server at {server.url} hangs")
    assert took_s < 20
