"""Fetch: one file from the hub to the disk, whole and verified, or not at all.

Owns resuming over broken connections and over runs, the digest, and the moment at which a file gets
its final name.

The hub's own client resumes no earlier run and checks no digest over HTTP; what it does well,
`remote` takes from it.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from appliance.core.errors import DownloadCancelled, DownloadFailed
from appliance.hub.remote import Hub, Interrupted, RemoteFile
from appliance.store.datadir import sync_directory, sync_file

KEPT_FREE_BYTES = 256 * 1024 * 1024
"""A download leaves this much of the disk to the books and to everybody else."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Between tries that fetched nothing; one that fetched something begins a new row."""
PAUSE_MAX_S = 60.0
"""However long the hub asks to be left alone."""
COPY_BYTES = 1 << 20

Progress = Callable[[int], None]
"""Told how many bytes of the file are here."""


def fetch(
    hub: Hub, file: RemoteFile, target: Path, *, progress: Progress, cancelled: threading.Event
) -> None:
    """Put a file of the hub at `target`; what is there of it already is not fetched again.

    Raises:
        DownloadFailed: it cannot be had, is not what its digest says, or the disk has no room.
        DownloadCancelled: `cancelled` was set; the part that is here stays.
    """
    try:
        _require_room(part_of(target, file), file)
        with _Part(part_of(target, file), file, progress, cancelled) as part:
            if part.have == 0:
                _copy_cached(hub, part)
            _fetch_rest(hub, part)
            part.require_right()
        sync_file(part.path)
        part.path.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise DownloadFailed(f"{target.name}: {error.strerror or error}") from error


def part_of(target: Path, file: RemoteFile) -> Path:
    """Return where a file is gathered; named by its digest, so that parts never mix."""
    return target.with_name(f"{file.digest}.part")


class _Part:
    """A file as far as it is here, and the digest of that."""

    def __init__(
        self, path: Path, file: RemoteFile, progress: Progress, cancelled: threading.Event
    ) -> None:
        self.path = path
        self.file = file
        self._progress = progress
        self.cancelled = cancelled
        self._stream = path.open("ab")
        path.chmod(0o600)
        self._digest = self._new_digest()
        self.have = 0

    def __enter__(self) -> Self:
        """Hash what an earlier run left."""
        if self.path.stat().st_size > self.file.bytes:
            self._stream.truncate(0)
        with self.path.open("rb") as earlier:
            while chunk := earlier.read(COPY_BYTES):
                self._digest.update(chunk)
                self.have += len(chunk)
        self._progress(self.have)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what is here."""
        self._stream.close()

    def add(self, chunk: bytes) -> None:
        """Append a piece.

        Raises:
            DownloadCancelled: nobody wants it any more.
            DownloadFailed: it is more than the file has.
        """
        if self.cancelled.is_set():
            raise DownloadCancelled
        if self.have + len(chunk) > self.file.bytes:
            raise DownloadFailed(f"{self.file.path}: the hub sends more than it said")
        self._stream.write(chunk)
        self._digest.update(chunk)
        self.have += len(chunk)
        self._progress(self.have)

    def begin_again(self) -> None:
        """Throw away what is here."""
        self._stream.truncate(0)
        self._digest, self.have = self._new_digest(), 0
        self._progress(0)

    def is_right(self) -> bool:
        """Say whether what is here is the file."""
        return bool(self._digest.hexdigest() == self.file.digest)

    def require_right(self) -> None:
        """Throw the part away if it is not the file.

        Raises:
            DownloadFailed: it is not.
        """
        self._stream.flush()
        if not self.is_right():
            found, file = self._digest.hexdigest(), self.file
            self.path.unlink()
            raise DownloadFailed(
                f"{file.repo}/{file.path}: its {file.kind} is {found}, and should be "
                f"{file.digest}; what was fetched is removed, pull again"
            )

    def _new_digest(self) -> Any:
        if self.file.kind == "sha256":
            return hashlib.sha256()
        # git-scm.com/book/en/v2/Git-Internals-Git-Objects: a blob's name covers its size as well.
        return hashlib.sha1(f"blob {self.file.bytes}\0".encode(), usedforsecurity=False)


def _require_room(part: Path, file: RemoteFile) -> None:
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    needed = file.bytes - have + KEPT_FREE_BYTES
    if free < needed:
        raise DownloadFailed(
            f"{file.path} needs {needed:,} bytes of free disk ({KEPT_FREE_BYTES:,} of them stay "
            f"free), and {free:,} are"
        )


def _copy_cached(hub: Hub, part: _Part) -> None:
    """Take the file from the hub's own client's cache; one that is not right is left there."""
    path = hub.cached(part.file)
    if path is None:
        return
    with path.open("rb") as source:
        while chunk := source.read(COPY_BYTES):
            part.add(chunk)
    if not part.is_right():
        part.begin_again()


def _fetch_rest(hub: Hub, part: _Part) -> None:
    tries = 0
    while part.have < part.file.bytes:
        before = part.have
        reason, wait_s = _fetch_some(hub, part)
        if part.have >= part.file.bytes:
            return
        tries = 1 if part.have > before else tries + 1
        if tries > len(PAUSES_S):
            raise DownloadFailed(f"{reason}; gave up after {tries} tries. Pull again to go on")
        if part.cancelled.wait(max(PAUSES_S[tries - 1], min(wait_s, PAUSE_MAX_S))):
            raise DownloadCancelled


def _fetch_some(hub: Hub, part: _Part) -> tuple[str, float]:
    """Fetch as much as comes; return why it ended, and how long to leave the hub alone."""
    try:
        with hub.open(part.file, part.have) as body:
            if body.offset != part.have:
                part.begin_again()
            for chunk in body.chunks:
                part.add(chunk)
    except Interrupted as error:
        return str(error), error.wait_s
    return "the connection ended early", 0.0
