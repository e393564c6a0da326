"""Reserve: allocated disk space, so that calls in flight can be finished on a full disk.

Owns one file of the data directory that holds nothing, and when it is allocated and removed.
"""

import logging
import os
from pathlib import Path

from appliance.core.clock import Clock

log = logging.getLogger("gigarouter.store")

PAUSE_S = 2
"""Seconds between two tries to allocate the reserve again."""
HEADROOM = 4
"""The reserve is allocated only if a quarter of its size stays free: allocating the last free block
would fill the disk again."""


class Reserve:
    """One server's reserve; used by one thread at a time."""

    def __init__(self, path: Path, size: int, clock: Clock) -> None:
        self._path = path
        self._size = size
        self._clock = clock
        self._next_ns = clock.monotonic_ns()

    def prepare(self) -> bool:
        """Allocate the reserve at the start of a server; return whether there is room for it.

        On a disk that is full already it is removed, so that there is room to open the database.
        """
        if self._is_whole() and self._free() >= self._size // HEADROOM:
            return True
        self.give_up()
        return self._allocate()

    def give_up(self) -> None:
        """Free the space; an error is logged, because the caller handles one already."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            # For example on a disk that became read-only: the next write fails with its own error.
            log.warning("the reserve %s could not be given up: %s", self._path, error)

    def take_back(self) -> bool:
        """Try to allocate it again, every `PAUSE_S` at most; return whether that succeeded."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns:
            return False
        self._next_ns = now_ns + PAUSE_S * 1_000_000_000
        return self._allocate()

    def _is_whole(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return found.st_size == self._size and found.st_blocks * 512 >= self._size

    def _free(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def _allocate(self) -> bool:
        try:
            if self._free() < self._size + self._size // HEADROOM:
                return False
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            handle = os.open(self._path, flags, 0o600)
            try:
                allocate(handle, self._size)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError:
            self.give_up()
            return False
        return True


def allocate(handle: int, size: int) -> None:
    """Allocate `size` bytes for an open, empty file.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    zeros = bytes(1024 * 1024)  # macOS has no such call
    for offset in range(0, size, len(zeros)):
        os.pwrite(handle, zeros[: size - offset], offset)
