"""Part: a file of the hub while it is fetched.

Owns how many of its bytes are good, and what an error of this machine's disk is: the end of the
download until somebody acts, and never a reason to ask the hub again.
"""

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.core.clock import Clock, SystemClock
from appliance.core.errors import DownloadCancelled, DownloadFailed
from appliance.hub.remote import RemoteFile

Progress = Callable[[int], None]
"""Called with a number of bytes."""


def _nothing(_: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how far a download is, and may cancel it."""

    cancelled: threading.Event
    progress: Progress = _nothing
    """Told the bytes that are on the disk."""
    checking: Progress = _nothing
    """Told how many of them were read again to be checked."""
    clock: Clock = field(default_factory=SystemClock)

    def require_wanted(self) -> None:
        """Go on.

        Raises:
            DownloadCancelled: it was cancelled.
        """
        if self.cancelled.is_set():
            raise DownloadCancelled


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Convert errors of the disk within the block to one line that names the path.

    Raises:
        DownloadFailed: the disk refused; the message gives its reason.
    """
    try:
        yield
    except OSError as error:
        free = ""
        if error.errno == errno.ENOSPC:
            with suppress(OSError):
                free = f" ({shutil.disk_usage(path.parent).free:,} bytes are free)"
        raise DownloadFailed(
            f"{path}: {error.strerror or error}{free}; put that right and pull again: it goes on "
            "from what is here"
        ) from error


class Part:
    """A partial file that is open; `have` bytes of it are good."""

    def __init__(self, path: Path, file: RemoteFile, watch: Watch, handle: int) -> None:
        self.path = path
        self.file = file
        self.watch = watch
        self.have = os.fstat(handle).st_size
        self._handle = handle
        if self.have > file.bytes:
            self.begin_again()
        watch.progress(self.have)

    def is_complete(self) -> bool:
        """Return whether no byte is missing; what they are is not known by that."""
        return self.have == self.file.bytes

    def add(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            DownloadCancelled: the download was cancelled.
            DownloadFailed: the file would be larger than the hub said, or the disk refused.
        """
        self.watch.require_wanted()
        if self.have + len(chunk) > self.file.bytes:
            raise DownloadFailed(f"{self.file.path}: the hub sends more than it said")
        left = memoryview(chunk)
        while left:
            with on_disk(self.path):
                written = os.pwrite(self._handle, left, self.have)
            self.have += written
            left = left[written:]
        self.watch.progress(self.have)

    def cut_to_good(self) -> None:
        """Remove what stands behind the good bytes.

        Raises:
            DownloadFailed: the disk refused.
        """
        with on_disk(self.path):
            os.ftruncate(self._handle, self.have)

    def begin_again(self) -> None:
        """Discard all bytes.

        Raises:
            DownloadFailed: the disk refused.
        """
        self.have = 0
        self.cut_to_good()
        self.watch.progress(0)

    def sync(self) -> None:
        """Make the bytes durable.

        Raises:
            DownloadFailed: the disk refused; some of what was written may be lost.
        """
        with on_disk(self.path):
            os.fsync(self._handle)


@contextmanager
def opened(path: Path, file: RemoteFile, watch: Watch) -> Iterator[Part]:
    """Yield the part at `path`, which is made if it is not there; its bytes stay afterwards.

    Raises:
        DownloadFailed: the disk refused, or something else has that name.
    """
    with on_disk(path):
        _require_own(path, file)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield Part(path, file, watch, handle)
    finally:
        os.close(handle)


def _require_own(path: Path, file: RemoteFile) -> None:
    """Remove a link of that name: a part is written to, and nothing else may be."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    is_shared = found.st_nlink > 1 and found.st_size != file.bytes
    if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and is_shared):
        path.unlink()
