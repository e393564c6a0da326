"""Server: the process that this console starts, and how one that runs is found.

Owns `server.json`, `admin.token` and the log's file of a data directory, as the server writes them,
and the life of a process that outlives the console.
"""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

START_S = 120.0
"""Measuring the machine at a first start takes a while."""
LOOK_AGAIN_S = 0.1
TAIL_BYTES = 64_000


class Note(msgspec.Struct):
    """`server.json`: where a server listens."""

    url: str
    pid: int


class DidNotStart(Exception):
    """The server ended before it listened; the message is its own last line."""


@dataclass(slots=True)
class LocalServer:
    """The server of one data directory."""

    data_dir: Path
    started: subprocess.Popen[bytes] | None = None
    """The process, if it was this console that started it."""

    @property
    def log(self) -> Path:
        """Where a server that a console started writes its log."""
        return self.data_dir / "logs" / "server.log"

    def note(self) -> Note | None:
        """Return where a server listens that lives, or None."""
        with suppress(OSError, msgspec.MsgspecError):
            note = msgspec.json.decode((self.data_dir / "server.json").read_bytes(), type=Note)
            os.kill(note.pid, 0)
            return note
        return None

    def token(self) -> str:
        """Return the operator's secret."""
        return (self.data_dir / "admin.token").read_text(encoding="ascii").strip()

    async def start(self) -> Note:
        """Start the server as a process of its own, and return where it listens.

        Raises:
            DidNotStart: it ended before that.
        """
        self.started = self._spawn()
        async with asyncio.timeout(START_S):
            while True:
                note = self.note()
                if note is not None and note.pid == self.started.pid:
                    return note
                if self.started.poll() is not None:
                    raise DidNotStart((self.tail() or ["it said nothing"])[-1])
                await asyncio.sleep(LOOK_AGAIN_S)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "appliance", "serve", "--data-dir", str(self.data_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def stop(self) -> None:
        """Tell the server to drain and end, and wait until it has."""
        note = self.note()
        if note is None:
            return
        with suppress(ProcessLookupError):
            os.kill(note.pid, signal.SIGTERM)
        while self.note() is not None:
            if self.started is not None:
                self.started.poll()  # a child that ended is gone only when it was asked for
            await asyncio.sleep(LOOK_AGAIN_S)
        if self.started is not None:
            await asyncio.to_thread(self.started.wait)

    def tail(self) -> list[str]:
        """Return the last lines of the log."""
        with suppress(OSError), self.log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            return stream.read().decode("utf-8", "replace").splitlines()
        return []
