"""Local server: the server of one data directory: found, started and stopped.

Owns the process that outlives the client which started it, and its log file. A server is found by
the lock of its directory, which the kernel frees when the process dies, never by a pid alone.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.client.caller import AsyncCaller
from appliance.client.errors import DidNotStart, DidNotStop, ServerLost
from appliance.client.process import ProcessHandle, command_line
from appliance.core.process_end import end_of
from appliance.core.redaction import conceal
from appliance.store.datadir import DataDir, ServerNote, is_of_here
from appliance.store.regular_file import open_private, read_private

START_S = 120.0
"""Seconds until a server listens: at its first start it measures the machine."""
STOP_S = 50.0
"""Seconds from SIGTERM to the end of the process: its drain, its own limit, and some more."""
LOOK_AGAIN_S = 0.1
TAIL_BYTES = 64_000


@dataclass(slots=True)
class LocalServer:
    """The server of one data directory."""

    data_dir: Path
    started: "subprocess.Popen[bytes] | None" = None
    """The process that this client started; None: it started none."""
    _directory: DataDir = field(init=False)
    _end_was_said: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._directory = DataDir(self.data_dir)

    @property
    def log(self) -> Path:
        """Where a server that a client started writes its log."""
        return self._directory.log

    def note(self) -> ServerNote | None:
        """Return where the server listens; None: no process that owns the directory serves it."""
        with suppress(OSError):
            return self._directory.server()
        return None

    def is_gone(self) -> bool:
        """Say whether no process owns the directory: no server runs, and none is being started."""
        with suppress(OSError):
            return not self._directory.is_locked()
        return False

    def token(self) -> str:
        """Return the operator's secret.

        Raises:
            ServerLost: it cannot be read.
        """
        try:
            token = read_private(self.data_dir / "admin.token").decode("ascii").strip()
        except (OSError, ValueError) as error:
            raise ServerLost(f"the admin token cannot be read: {error}") from None
        conceal(token)
        return token

    def caller(self, note: ServerNote) -> AsyncCaller:
        """Return a caller of the server at a note.

        Raises:
            ServerLost: there is no token to call it with.
        """
        return AsyncCaller(note.url, self.token(), connect_url=note.connect_url)

    def is_ours(self) -> bool:
        """Say whether the process that this client started runs, and no other one serves."""
        child = self.started
        if child is None or child.poll() is not None:
            return False
        note = self.note()
        return note is None or _is(note, child.pid)

    def unexpected_end(self) -> str | None:
        """Return how the process that this client started ended, once; None: it did not."""
        child = self.started
        if child is None or self._end_was_said or child.poll() is None:
            return None
        self._end_was_said = True
        return f"the server (process {child.pid}) {end_of(child.returncode)}"

    def description(self, note: ServerNote) -> str:
        """Return which process serves, by pid and command line."""
        if not is_of_here(note):
            return f"process {note.pid} of a container"
        return f"process {note.pid} ({command_line(note.pid) or 'its command line is unknown'})"

    async def start(self) -> ServerNote:
        """Start the server as a process of its own, and return where it listens.

        Raises:
            DidNotStart: it ended before that, or does not listen after `START_S`.
        """
        self.started, self._end_was_said = self._spawn(), False
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while True:
                    note = self.note()
                    if note is not None and _is(note, self.started.pid):
                        return note
                    if self.started.poll() is not None:
                        self._end_was_said = True
                        how = end_of(self.started.returncode)
                        raise DidNotStart(f"{(self.tail() or ['it said nothing'])[-1]} ({how})")
                    await asyncio.sleep(LOOK_AGAIN_S)
        raise DidNotStart(
            f"process {self.started.pid} does not listen after {START_S:.0f} s; see {self.log}"
        )

    def _spawn(self) -> "subprocess.Popen[bytes]":
        try:
            self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = open_private(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(handle, "ab") as log:
                # -P: the folder that the client was started in is not on the path of imports.
                return subprocess.Popen(  # noqa: S603 - our own program
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "appliance",
                        "serve",
                        "--data-dir",
                        str(self.data_dir.absolute()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise DidNotStart(f"{error.filename}: {error.strerror}") from None

    async def stop(self, foreign: ServerNote | None = None) -> None:
        """Tell the server to drain and end, and wait until its process is over.

        `foreign`: a server that this client did not start and that a person agreed to stop.

        Raises:
            DidNotStop: it runs still after `STOP_S`, was neither started here nor named, or belongs
                to another user.
        """
        note = self.note()
        if self.started is not None and self.is_ours():
            pid = self.started.pid
        elif note is None:
            return
        elif note == foreign:
            if not is_of_here(note):
                raise DidNotStop(f"{self.description(note)} is stopped where that was started")
            pid = note.pid
        else:
            raise DidNotStop(f"{self.description(note)} was not started here: it was not stopped")
        try:
            with ProcessHandle(pid, lambda: self._is_server(pid)) as process:
                if process.terminate():
                    self._end_was_said = True
                    await self._over(process)
        except ProcessLookupError:
            return
        except PermissionError:
            raise DidNotStop(f"process {pid} belongs to another user; it was not stopped") from None

    def _is_server(self, pid: int) -> bool:
        """Say whether a process owns the directory, or is our child, whose pid is not free yet."""
        child = self.started
        if child is not None and child.pid == pid and child.poll() is None:
            return True
        return self._directory.owner() == pid

    async def _over(self, process: ProcessHandle) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while not process.is_over():  # noqa: ASYNC110 - no event says that a process ended
                    await asyncio.sleep(LOOK_AGAIN_S)
                if self.started is not None:
                    self.started.poll()  # reaps it, if it is our child
                return
        self._end_was_said = False
        raise DidNotStop(
            f"process {process.pid} was told to stop {STOP_S:.0f} s ago and still runs. "
            f"{self.log} may say why; `kill -9 {process.pid}` ends it without closing its books."
        )

    def tail(self) -> list[str]:
        """Return the last lines of the log."""
        with suppress(OSError), self.log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            return stream.read().decode("utf-8", "replace").splitlines()
        return []


def _is(note: ServerNote, pid: int) -> bool:
    return note.pid == pid and is_of_here(note)
