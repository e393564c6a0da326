"""Supervisor: a small process that keeps a server running and its port open.

Owns the lock of the data directory, the listening socket, and when a server that died is started
again. It loads no model and no web framework, so that what kills the server does not kill it.
While no server runs, callers wait in the kernel's queue of connections; if that would take long,
each is told to come back. So is whoever calls while the last server drains.
"""

import json
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from appliance import sd_notify
from appliance.core.clock import Clock
from appliance.core.process_end import end_of
from appliance.settings import environment
from appliance.supervised import ALIVE, HANG_UP, LISTENS, STOP, WELL, Supervised

log = logging.getLogger("gigarouter.supervisor")

STEADY_S = 300.0
"""A server that ran so long is started again at once when it dies."""
PAUSE_S_MAX = 30.0
"""Before a start, at most, however many servers have died."""
QUIET_S = 660.0
"""A server that has once said that it is well and then does not for so long, hangs: longer than the
longest call may compute."""
SILENT_S = 120.0
"""The same for the sign of life that is given every few seconds."""
PATIENCE_S = 1.5
"""Callers wait so long for the next server without a word."""
HEAD_BYTES, HEAD_S = 65_536, 0.2
READ_S = 1.0
"""A caller that is sent away may go on sending for so long, so that it can read why."""
LEAVING_S = 1.0
"""How long, at most, the last callers in the queue are answered before the port is closed."""
DRAINING_S = 5
"""After which a caller of a server that drains may come back."""
LOOK_AGAIN_S = 1.0
WATCHDOG_S = 5.0
"""Between two signs of life for systemd while no server runs."""
NS_PER_S = 1_000_000_000


def pause_s(deaths: Sequence[float], now_s: float, *, first_s: float, chance: float) -> float:
    """Return how long to wait before the next start; `deaths` are times in seconds.

    The first restart within `STEADY_S` is at once, the second waits `first_s`, each further one
    twice as long. `chance` (0 to 1) spreads those of many servers by a quarter.
    """
    recent = sum(now_s - death < STEADY_S for death in deaths)
    if recent <= 1:
        return 0.0
    doubled = first_s * 2 ** min(recent - 2, 10)
    return float(min(PAUSE_S_MAX, doubled) * (0.75 + chance / 2))


class Supervisor:
    """Runs one server after the other until it is told to stop, or one refuses to start."""

    def __init__(
        self,
        command: Sequence[str],
        listener: socket.socket,
        lock: int,
        clock: Clock,
        *,
        pause_s: float,
        is_secure: bool = False,
    ) -> None:
        """Prepare; `command` starts a server and takes `--supervised WORDS`.

        `pause_s` is waited before the second restart. `is_secure`: callers speak TLS, and cannot
        be told anything here.
        """
        self._command = list(command)
        self._listener = listener
        self._lock = lock
        self._clock = clock
        self._pause_s = pause_s
        self._is_secure = is_secure
        self._deaths: deque[float] = deque(maxlen=32)
        self._asked: list[int] = []
        """Signals that came and were not passed on yet."""
        self._is_stopping = False
        self._heard_s: dict[bytes, float] = {}
        """When it said last that it is alive, and well."""

    def run(self) -> int:
        """Return the exit code for this process, once no server shall run any more."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _awake)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note_signal)
        code = 0
        while True:
            code = self._run_one(reader, code)
            if self._is_stopping or code == 0:
                return code if code >= 0 else 1
            if code > 0:
                # It ended by itself and said why: wrong settings, a store that cannot be opened, a
                # disk that failed. After such a disk what the system still remembers may never
                # have been written, so nothing is opened again without a person.
                return code
            now_s = self._now_s()
            self._deaths.append(now_s)
            chance = random.random()  # noqa: S311 - no secret
            wait_s = pause_s(self._deaths, now_s, first_s=self._pause_s, chance=chance)
            log.error(
                "the server %s; it is started again %s",
                end_of(code),
                f"in {wait_s:.1f} s" if wait_s else "now",
            )
            if not self._wait(reader, wait_s):
                return 1

    def _run_one(self, reader: int, before: int) -> int:
        """Run one server to its end; return its code, negative for a signal.

        `before` is the code of the one before, 0 if there was none.
        """
        ours, theirs = socket.socketpair()
        inherited = Supervised(os.getpid(), theirs, self._listener, self._lock, before)
        kept = (theirs.fileno(), self._listener.fileno(), self._lock)
        # A session of its own: Ctrl-C in a terminal reaches this process alone, and is passed on.
        server = subprocess.Popen(  # noqa: S603 - our own program
            [*self._command, "--supervised", inherited.words()],
            pass_fds=kept,
            env=environment(),
            start_new_session=True,
        )
        theirs.close()
        self._heard_s.clear()
        try:
            while server.poll() is None:
                # A server that drains accepts nobody any more, and they would wait for its end.
                port = [self._listener.fileno()] * (self._is_stopping and not self._is_secure)
                found, _, _ = select.select([reader, ours.fileno(), *port], [], [], LOOK_AGAIN_S)
                _drain(reader)
                self._pass_on(ours)
                self._hear(ours)
                self._end_one_that_hangs(server)
                if self._listener.fileno() in found:
                    self._send_away(draining())
            self._hear(ours)
        finally:
            ours.close()
        if self._is_stopping and not self._is_secure:
            self._empty_the_queue()
        return server.returncode

    def _empty_the_queue(self) -> None:
        """Answer those that connected and were accepted by nobody: a closed port would cut them."""
        until_s = self._now_s() + LEAVING_S
        while self._now_s() < until_s and select.select([self._listener], [], [], 0)[0]:
            self._send_away(draining())

    def _hear(self, line: socket.socket) -> None:
        with suppress(OSError):
            said = line.recv(4096, socket.MSG_DONTWAIT)
            if LISTENS in said:
                sd_notify.notify("READY=1")
            for word in (ALIVE, WELL):
                if word in said:
                    self._heard_s[word] = self._now_s()
            if ALIVE in said:
                sd_notify.notify("WATCHDOG=1")

    def _pass_on(self, line: socket.socket) -> None:
        while self._asked:
            number = self._asked.pop(0)
            if number != signal.SIGHUP or not self._is_stopping:
                sd_notify.notify("STOPPING=1")
            self._is_stopping = True
            with suppress(OSError):
                line.send(HANG_UP if number == signal.SIGHUP else STOP)

    def _end_one_that_hangs(self, server: "subprocess.Popen[bytes]") -> None:
        for word, most_s in ((ALIVE, SILENT_S), (WELL, QUIET_S)):
            if self._now_s() - self._heard_s.get(word, self._now_s()) > most_s:
                what = "computed nothing" if word == WELL else "gave no sign of life"
                log.error("the server %s for %.0f s: it is ended", what, most_s)
                self._heard_s.clear()
                server.send_signal(signal.SIGABRT)  # faulthandler then writes where it stands

    def _wait(self, reader: int, seconds: float) -> bool:
        """Wait, telling callers to come back; return False if told to stop meanwhile."""
        until_s = self._now_s() + seconds
        while (left_s := until_s - self._now_s()) > 0:
            sd_notify.notify("WATCHDOG=1")  # no server runs that could say so
            answers = left_s > PATIENCE_S and not self._is_secure
            watched = [reader, *[self._listener.fileno()] * answers]
            found, _, _ = select.select(watched, [], [], min(left_s, WATCHDOG_S))
            _drain(reader)
            if self._asked:
                return False
            if self._listener.fileno() in found:
                self._send_away(come_back(max(1, round(left_s + 1))))
        return not self._asked

    def _send_away(self, answer: bytes) -> None:
        with suppress(OSError):
            caller, _ = self._listener.accept()
            with caller:
                caller.settimeout(HEAD_S)
                with suppress(TimeoutError):
                    caller.recv(HEAD_BYTES)
                caller.sendall(answer)
                caller.shutdown(socket.SHUT_WR)
                until_s = self._now_s() + READ_S
                # Closed while something is unread, the connection would be reset.
                with suppress(TimeoutError):
                    while caller.recv(HEAD_BYTES) and self._now_s() < until_s:
                        pass

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        self._asked.append(number)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / NS_PER_S


def come_back(seconds: int) -> bytes:
    """Return the answer to whoever calls while no server runs."""
    return _not_now("engine_restarting", "The server is being started again.", seconds)


def draining() -> bytes:
    """Return the answer to whoever calls while the last server ends."""
    return _not_now("draining", "The server is shutting down.", DRAINING_S)


def _not_now(code: str, message: str, seconds: int) -> bytes:
    """Return a 503 in the shape of every error."""
    error = {
        "code": code,
        "message": message,
        "type": "server_error",
        "param": None,
        "retry_after_s": seconds,
    }
    body = json.dumps({"error": error, "detail": message, "message": message}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
        f"retry-after: {seconds}\r\nx-should-retry: true\r\ncache-control: no-store\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def program() -> list[str]:
    """Return the command that starts this program again, without the current folder's modules."""
    return [sys.executable, "-P", "-m", Path(__file__).resolve().parent.name]


def _awake(_number: int, _frame: FrameType | None) -> None:
    """Let the signal end a wait; the wake-up descriptor has it by then."""


def _drain(reader: int) -> None:
    with suppress(BlockingIOError):
        while os.read(reader, 4096):
            pass
