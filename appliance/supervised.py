"""Supervised: what a server knows of the process that started it and restarts it.

Owns the line between the two: one socket, on which the supervisor says when to stop, the server
when it listens and that it is well, and whose end tells each that the other is gone.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from appliance.machine import die_with_parent

STOP, HANG_UP = b"T", b"H"
"""What the supervisor says: end in good order, as on SIGTERM; or as on SIGHUP."""
LISTENS, ALIVE, WELL = b"L", b"A", b"W"
"""What the server says: its port is served; its loop and its books answer; its engines compute."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """What a server inherits; the numbers are descriptors."""

    supervisor: int
    """The process that owns the data directory for other programs."""
    line: socket.socket
    listener: socket.socket
    lock: int
    """Of the data directory: locked for as long as either process has it open."""
    before: int = 0
    """How the server before this one ended: negative for a signal; 0: this is the first one."""

    @classmethod
    def from_words(cls, words: str) -> Self:
        """Return what the supervisor wrote into the command line with `words`.

        Raises:
            ValueError: it did not.
        """
        supervisor, line, listener, lock, before = map(int, words.split(","))
        sockets = socket.socket(fileno=line), socket.socket(fileno=listener)
        return cls(supervisor, *sockets, lock, before)

    def words(self) -> str:
        """Return it for the command line of the process that inherits it."""
        sockets = f"{self.line.fileno()},{self.listener.fileno()}"
        return f"{self.supervisor},{sockets},{self.lock},{self.before}"

    def say(self, word: bytes) -> None:
        """Tell the supervisor; one that is gone needs no telling."""
        with suppress(OSError):
            self.line.send(word)

    def attend(self, on_signal: Callable[[int], None]) -> None:
        """Pass on what the supervisor says from now on, and end this process with the supervisor.

        A server without its supervisor would hold the port and the books, and nobody would find it.
        """
        # The end of the line says it too, but a thread must run to hear it.
        die_with_parent(self.supervisor)
        threading.Thread(
            target=self._listen, args=(on_signal,), name="supervisor line", daemon=True
        ).start()

    def _listen(self, on_signal: Callable[[int], None]) -> None:
        self.line.setblocking(True)
        while True:
            try:
                word = self.line.recv(1)
            except OSError:
                word = b""
            if not word:
                os._exit(1)
            on_signal(signal.SIGHUP if word == HANG_UP else signal.SIGTERM)
