"""Fetch: download one file from the hub, completely and verified, or not at all.

Resumes after a broken connection and after an earlier run, verifies the digest, and only then gives
the file its final name. huggingface_hub's own download does neither the second nor the third over
HTTP, so only its lower layers are used (`remote.py`).
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
"""Free disk space that a download leaves for the database and other programs."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses between successive attempts that got no bytes; one that got some starts again at the
first pause."""
PAUSE_MAX_S = 60.0
"""Longest pause, even if the hub's Retry-After asks for a longer one."""
COPY_BYTES = 1 << 20

Progress = Callable[[int], None]
"""Called with the number of bytes that are on the disk."""


def fetch(
    hub: Hub, file: RemoteFile, target: Path, *, progress: Progress, cancelled: threading.Event
) -> None:
    """Download a file to `target`; bytes from an earlier attempt are not downloaded again.

    Raises:
        DownloadFailed: it cannot be downloaded, its digest is wrong, or the disk is too full.
        DownloadCancelled: `cancelled` was set; the bytes downloaded so far stay on the disk.
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
    """Return the path of the partial file. It is named by the digest, so parts never mix."""
    return target.with_name(f"{file.digest}.part")


class _Part:
    """A partial file on the disk, and the running digest of its bytes."""

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
        """Hash the bytes of an earlier run."""
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
        """Close the file and keep its bytes."""
        self._stream.close()

    def add(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            DownloadCancelled: the download was cancelled.
            DownloadFailed: the file would be larger than the hub said.
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
        """Discard all bytes."""
        self._stream.truncate(0)
        self._digest, self.have = self._new_digest(), 0
        self._progress(0)

    def is_right(self) -> bool:
        """Return whether the digest of the bytes is the file's."""
        return bool(self._digest.hexdigest() == self.file.digest)

    def require_right(self) -> None:
        """Delete the partial file if its digest is wrong.

        Raises:
            DownloadFailed: the digest is wrong.
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
        # A git blob's digest includes its size: git-scm.com/book/en/v2/Git-Internals-Git-Objects.
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
    """Copy the file from huggingface_hub's cache, if it is there and its digest is right."""
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
    """Download until the connection ends; return the reason, and the hub's Retry-After in s."""
    try:
        with hub.open(part.file, part.have) as body:
            if body.offset != part.have:
                part.begin_again()
            for chunk in body.chunks:
                part.add(chunk)
    except Interrupted as error:
        return str(error), error.wait_s
    return "the connection ended early", 0.0
