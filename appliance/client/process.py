"""Process: one process of this machine, never mistaken for a later one with the same pid.

Owns signals to processes and what the system says of them.
"""

import os
import select
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

COMMAND_CHARS_MAX = 160
PS_S = 5.0


class ProcessHandle:
    """A process that is identified by more than its pid.

    Linux: a pidfd, which stays with its process. Elsewhere: a second look before each signal.
    """

    def __init__(self, pid: int, is_same: Callable[[], bool]) -> None:
        """Open a handle; `is_same` says whether `pid` is still the process that is meant.

        Raises:
            ProcessLookupError: no process has this pid.
        """
        self.pid = pid
        self._is_same = is_same
        self._handle = _open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def terminate(self) -> bool:
        """Send SIGTERM; return False if the process is gone.

        Raises:
            PermissionError: it belongs to another user.
        """
        # Asked after the handle was opened: a process that has the pid by now is not the one that
        # the handle is of, and one that had it before does not pass this question.
        if not self._is_same():
            return False
        try:
            if self._handle is None:
                os.kill(self.pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(self._handle, signal.SIGTERM)
        except ProcessLookupError:
            return False
        return True

    def is_over(self) -> bool:
        """Say whether the process ended; one that waits to be reaped did."""
        if self._handle is None:
            return not self._is_same()
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(0))


def _open(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None  # an older kernel


def command_line(pid: int) -> str:
    """Return the command line of a process, shortened; empty where the system does not say."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b" ".join(words).decode("utf-8", "replace").strip()[:COMMAND_CHARS_MAX]
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(  # noqa: S603 - a number is its only argument
            ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - wherever the system keeps it
            capture_output=True,
            text=True,
            timeout=PS_S,
            check=False,
        )
        return listed.stdout.strip()[:COMMAND_CHARS_MAX]
    return ""
