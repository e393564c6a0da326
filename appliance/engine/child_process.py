"""Child process: the operating system's side of a model's own process.

Owns how it is started and ended, its log, and who is told when it ends by itself.
"""

import logging
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO

from appliance.core.errors import EngineDied, LoadFailed
from appliance.core.once import once
from appliance.core.process_end import end_of
from appliance.engine.no_memory import speaks_of_no_memory
from appliance.settings import environment

log = logging.getLogger("gigarouter.child")

COMMAND = (sys.executable, "-P", "-m", "appliance.engine.child")
END_S = 10.0
"""Seconds that it may take to end, once it is told to."""
LINE_CHARS_MAX = 1_000
LINES_MAX = 5_000
"""Of one process in the log: whoever has taken it over must not fill the disk."""
TAIL_LINES = 20


@once
def _starter() -> ThreadPoolExecutor:
    """Return the one thread that starts processes.

    On Linux a process that is to end with its parent ends with the parent's *thread*: one that
    loads a model may end long before the model is freed.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="starter")


class ChildProcess:
    """One process; any thread may end it or ask how it ended."""

    def __init__(self, name: str) -> None:
        """Start it; `control` is the socket to it.

        Raises:
            LoadFailed: the system has no room for another process.
        """
        self._name = name
        self._lock = threading.Lock()
        self._is_closing = False
        self._on_loss: Callable[[EngineDied], None] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            self.control, theirs = socket.socketpair()
            with theirs:
                self._process = _starter().submit(self._start, theirs.fileno()).result()
        except OSError as error:
            raise LoadFailed(f"{name}: no process could be started: {error}") from None
        self._listener = threading.Thread(target=self._listen, name=f"{name}/log", daemon=True)
        self._listener.start()

    def __repr__(self) -> str:
        """Say whether it runs."""
        state = "runs" if self._process.poll() is None else "ended"
        return f"<ChildProcess {self._name} [{self._process.pid} | {state}]>"

    @property
    def pid(self) -> int:
        """Return its number."""
        return self._process.pid

    @property
    def lacked_memory(self) -> bool:
        """Say whether the last it wrote was that memory is full."""
        return speaks_of_no_memory("\n".join(self._tail))

    def notify(self, on_loss: Callable[[EngineDied], None]) -> None:
        """Call a function, on a thread of this object's, when the process ends by itself."""
        with self._lock:
            self._on_loss = on_loss
            has_ended = self._process.poll() is not None and not self._is_closing
        if has_ended:
            on_loss(self.died())

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def died(self) -> EngineDied:
        """Return how it ended, as an error; waits for its end, which has been seen to come."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        # What it wrote last says more than its signal.
        self._listener.join(1.0)
        return EngineDied(f"its process {_end(self._process.returncode)}")

    def close(self) -> None:
        """Let it end, and return when it has."""
        with self._lock:
            self._is_closing = True
        self.control.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, descriptor: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own module
            (*COMMAND, str(descriptor)),
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            # Ctrl-C and signals to the server's group are not meant for it. A session of its own
            # would keep them away too, but Linux shares the cores between sessions (autogroups):
            # on busy cores each batch would then wait for its turn twice more (p50 + 29 %).
            process_group=0,
        )

    # -- on the listener's thread ---------------------------------------------------------------

    def _listen(self) -> None:
        """Copy what it writes into the log; then say that it has ended."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            _copy(stream, self._name, self._tail)
        self._process.wait()
        with self._lock:
            told = None if self._is_closing else self._on_loss
        if told is not None:
            told(EngineDied(f"its process {_end(self._process.returncode)}"))


def _copy(stream: IO[bytes], name: str, tail: deque[str]) -> None:
    lines = 0
    while line := stream.readline(LINE_CHARS_MAX):
        text = line.decode("utf-8", "replace").strip()
        tail.append(text)
        lines += 1
        if lines <= LINES_MAX:
            word, _, rest = text.partition(" ")
            level = logging.getLevelNamesMapping().get(word)
            log.log(level or logging.WARNING, "%s: %s", name, rest if level else text)
        elif lines == LINES_MAX + 1:
            log.warning("%s writes too much: no more of it is logged", name)


def _end(returncode: int | None) -> str:
    return "does not answer" if returncode is None else end_of(returncode)
