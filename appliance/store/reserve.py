"""Reserve: disk space kept back, so that a full disk stops new calls and loses none.

Owns one file of the data directory that is nothing but allocated space, and when to take it and
give it up.
"""

import logging
import os
from pathlib import Path

from appliance.core.clock import Clock

log = logging.getLogger("gigarouter.store")

PAUSE_S = 2
"""Between two tries to take the reserve back."""
HEADROOM = 4
"""The reserve is taken only where a quarter of it is left beside it: taking the last free block
would only fill the disk again."""


class Reserve:
    """One server's reserve; used by one thread at a time."""

    def __init__(self, path: Path, size: int, clock: Clock) -> None:
        self._path = path
        self._size = size
        self._clock = clock
        self._next_ns = clock.monotonic_ns()

    def prepare(self) -> bool:
        """Have the reserve at the start of a server; return whether there is room for it.

        On a disk that is full already it is given up, so that there is room to open the database.
        """
        if self._is_whole() and self._free() >= self._size // HEADROOM:
            return True
        self.give_up()
        return self._allocate()

    def give_up(self) -> None:
        """Give the space back to the disk, if the disk lets it go."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            # A disk that became read-only. The write that needs the space fails and says so.
            log.warning("the reserve %s could not be given up: %s", self._path, error)

    def take_back(self) -> bool:
        """Try to have the reserve again, every few seconds at most; return whether it is there."""
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
    """Make the disk set `size` bytes aside for an open, empty file.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    zeros = bytes(1024 * 1024)  # macOS has no such call
    for offset in range(0, size, len(zeros)):
        os.pwrite(handle, zeros[: size - offset], offset)
