import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from appliance.listener import listen
from appliance.supervised import Supervised
from appliance.supervisor import (
    PAUSE_S_MAX,
    STEADY_S,
    come_back,
    draining,
    pause_s,
    program,
)
from tests.server import ROOT, child_of, free_port, is_over

PAUSE_S = 0.5
SUPERVISE = """
import sys
from appliance.core.clock import SystemClock
from appliance.listener import listen
from appliance.supervisor import Supervisor
import appliance.supervisor as module
listener = listen("127.0.0.1", int(sys.argv[1]))
sys.exit(Supervisor([sys.executable, "-c", sys.argv[2]], listener, listener.fileno(), SystemClock(), pause_s=float(sys.argv[3])).run())
"""
SERVER = """
import os, signal, sys, time
from appliance.supervised import LISTENS, Supervised
server = Supervised.from_words(sys.argv[-1])
{body}
"""


def test_the_first_restart_is_at_once_and_each_further_death_doubles_the_wait():
    def waits(deaths, now=0.0, chance=0.5):
        return pause_s(deaths, now, first_s=PAUSE_S, chance=chance)

    assert waits([0.0]) == 0.0
    assert [waits([0.0] * n) for n in (2, 3, 4)] == [PAUSE_S, PAUSE_S * 2, PAUSE_S * 4]
    assert waits([0.0] * 30) == PAUSE_S_MAX
    assert waits([0.0] * 30, now=STEADY_S) == 0.0
    assert waits([0.0, STEADY_S - 1], now=STEADY_S - 1) == PAUSE_S
    assert waits([0.0] * 2, chance=0.0) < PAUSE_S < waits([0.0] * 2, chance=1.0)


def test_whoever_calls_between_two_servers_is_told_when_to_come_back():
    head, body = come_back(7).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 7\r\n" in head
    assert f"content-length: {len(body)}".encode() in head
    error = json.loads(body)["error"]
    assert (error["code"], error["retry_after_s"]) == ("engine_restarting", 7)


def test_what_a_server_inherits_is_the_same_after_the_command_line():
    ours, theirs = socket.socketpair()
    listener = listen("127.0.0.1", free_port())
    words = Supervised(os.getpid(), theirs, listener, 9, -11).words()
    again = Supervised.from_words(words)
    assert again.words() == words
    assert again.supervisor == os.getpid()
    assert (again.lock, again.before) == (9, -11)
    for each in (ours, theirs, listener):
        each.close()
    again.line.detach()
    again.listener.detach()
    with pytest.raises(ValueError, match="values to unpack"):
        Supervised.from_words("1,2")


@pytest.fixture
def supervised(tmp_path):
    """Run a supervisor over a server that does as its body says; it is killed afterwards."""
    made = []

    def start(body, *, pause_s=0.01):
        port = free_port()
        log = (tmp_path / "log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, str(port), SERVER.format(body=body), str(pause_s)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "OUT": str(tmp_path / "out"), "PYTHONPATH": str(ROOT)},
        )
        log.close()
        made.append(process)
        return process, port

    start.out = tmp_path / "out"
    yield start
    for each in made:
        each.kill()
        each.wait()


def wait_until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_refuses_to_start_ends_its_supervisor_with_its_code(supervised):
    process, _ = supervised("sys.exit(3)")
    assert process.wait(30) == 3


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_server_that_dies_is_started_again_and_its_end_in_good_order_is_the_supervisors(
    supervised, name
):
    body = f"""
with open(os.environ["OUT"], "a") as out:
    out.write("x")
server.say(LISTENS)
if os.path.getsize(os.environ["OUT"]) < 3:
    os.kill(os.getpid(), signal.{name})
"""
    process, _ = supervised(body)
    assert process.wait(30) == 0
    assert supervised.out.read_text() == "xxx"


def test_one_that_dies_before_it_listens_is_started_again_too(supervised):
    body = """
with open(os.environ["OUT"], "a") as out:
    out.write("x")
if os.path.getsize(os.environ["OUT"]) < 2:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process, _ = supervised(body)
    assert process.wait(30) == 0
    assert supervised.out.read_text() == "xx"


STOPS = """
from pathlib import Path
import threading
told = []
done = threading.Event()
def on_signal(number):
    told.append(signal.Signals(number).name)
    Path(os.environ["OUT"]).write_text(" ".join(told))
    if len(told) == 2:
        done.set()
server.attend(on_signal)
server.say(LISTENS)
Path(os.environ["OUT"]).write_text("ready")
done.wait()
os._exit(5)
"""


def test_signals_are_passed_on_over_the_line_and_the_code_is_the_servers(supervised):
    process, _ = supervised(STOPS)
    wait_until(lambda: supervised.out.exists() and supervised.out.read_text() == "ready")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: supervised.out.read_text() == "SIGHUP")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 5
    assert supervised.out.read_text() == "SIGHUP SIGTERM"


def test_a_supervisor_that_is_killed_takes_its_server_along(supervised):
    process, port = supervised(STOPS)
    wait_until(lambda: supervised.out.exists() and supervised.out.read_text() == "ready")
    child = child_of(process.pid)
    assert child is not None
    process.kill()
    process.wait()
    wait_until(lambda: is_over(child))
    wait_until(lambda: is_refused(port))


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


DIES = """
server.say(LISTENS)
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_connection_is_refused_while_servers_die_and_a_long_wait_is_a_503(supervised):
    process, port = supervised(DIES, pause_s=20.0)
    wait_until(lambda: not is_refused(port))
    # The first restart is at once; after the second death callers would wait for twenty seconds.
    with socket.create_connection(("127.0.0.1", port), 30) as caller:
        caller.settimeout(30)
        caller.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while piece := caller.recv(65_536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"engine_restarting" in answer
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1


def test_while_no_server_runs_the_supervisor_tells_systemd_that_it_lives(
    supervised, tmp_path, monkeypatch
):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        supervised("os.kill(os.getpid(), signal.SIGKILL)", pause_s=20.0)
        assert [manager.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2


DRAINS = """
from pathlib import Path
import threading
def on_signal(number):
    Path(os.environ["OUT"]).write_text("drains")
    threading.Timer(DRAIN_S, os._exit, (0,)).start()
server.attend(on_signal)
Path(os.environ["OUT"]).write_text("ready")
threading.Event().wait()
"""


def call(caller, body=b""):
    """Send a request and return the whole answer; a connection that is cut raises."""
    caller.settimeout(30)
    caller.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n\r\n" + body)
    answer = b""
    while piece := caller.recv(65_536):
        answer += piece
    return answer


def test_whoever_calls_while_the_last_server_drains_is_told_so_and_not_left_waiting(supervised):
    # A drain that never ends by itself: whoever is answered was not answered by its end.
    process, port = supervised(DRAINS.replace("DRAIN_S", "600"))
    wait_until(lambda: supervised.out.exists() and supervised.out.read_text() == "ready")
    with socket.create_connection(("127.0.0.1", port), 30) as waiting:
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: supervised.out.read_text() == "drains")
        # One who waited in the queue, one who comes now, and one with a body that is not read.
        assert call(waiting) == draining()
    for body in (b"", b"x" * 300_000):
        with socket.create_connection(("127.0.0.1", port), 30) as caller:
            assert call(caller, body) == draining()
    assert json.loads(draining().split(b"\r\n\r\n")[1])["error"]["code"] == "draining"
    assert process.poll() is None


def test_who_stands_in_the_queue_when_the_last_server_ends_is_answered(supervised):
    body = DRAINS.replace("DRAIN_S", "1")
    process, port = supervised(body)
    wait_until(lambda: supervised.out.exists() and supervised.out.read_text() == "ready")
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: supervised.out.read_text() == "drains")
    callers = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(8)]
    answers = []
    for caller in callers:
        with caller:
            answers.append(call(caller))
    assert answers == [draining()] * len(callers)
    assert process.wait(30) == 0


@pytest.mark.parametrize(("word", "most"), [("WELL", "QUIET_S"), ("ALIVE", "SILENT_S")])
def test_a_server_that_says_no_more_that_it_is_well_is_ended_and_started_again(
    supervised, monkeypatch, word, most
):
    body = """
from appliance.supervised import ALIVE, WELL
with open(os.environ["OUT"], "a") as out:
    out.write("x")
server.say(LISTENS)
server.say(WORD)
if os.path.getsize(os.environ["OUT"]) == 1:
    time.sleep(600)
"""
    monkeypatch.setattr(
        f"{__name__}.SUPERVISE",
        SUPERVISE.replace(
            "import appliance.supervisor as module",
            f"import appliance.supervisor as module\nmodule.{most} = 0.5\nmodule.LOOK_AGAIN_S = 0.1",
        ),
    )
    process, _ = supervised(body.replace("WORD", word))
    assert process.wait(30) == 0
    assert supervised.out.read_text() == "xx"


def test_the_program_is_started_without_the_current_folder():
    assert program() == [sys.executable, "-P", "-m", "appliance"]
