"""Digests: the SHA-256 of model files, computed once for each file as it is.

Owns what was computed, by the file's device, inode, size and time of change: a file that is renamed
is not read again, and one that is replaced or written to is.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from appliance.store.datadir import write_private

log = logging.getLogger("gigarouter.models")

KEPT_MAX = 1000
"""Files whose digests are kept; the ones computed first are forgotten first."""
READ_BYTES = 1 << 20


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Return a file's SHA-256 in hexadecimal; `progress` is told the bytes read so far.

    An error that `progress` raises ends the reading.

    Raises:
        OSError: it cannot be read.
    """
    return hash_into(hashlib.sha256(), path, progress)


def hash_into(content: Any, path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Add a file to a hash of hashlib's and return it in hexadecimal; otherwise as `sha256_of`.

    Raises:
        OSError: it cannot be read.
    """
    read = 0
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            content.update(chunk)
            read += len(chunk)
            if progress is not None:
                progress(read)
    found: str = content.hexdigest()
    return found


class Digests:
    """Digests of files; any thread may ask."""

    def __init__(self, path: Path | None) -> None:
        """Read what is kept at `path`; None: nothing is kept."""
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        if path is not None:
            with suppress(OSError, msgspec.MsgspecError):
                self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, str])

    def __repr__(self) -> str:
        """Count what is known."""
        return f"<Digests [{len(self._known)} files]>"

    def sha256(self, file: Path, progress: Callable[[int], None] | None = None) -> str:
        """Return a file's SHA-256 in hexadecimal, from memory if the file has not changed.

        Raises:
            OSError: it cannot be read.
        """
        before = _identity(file)
        known = self._known.get(before)
        if known is not None:
            return known
        digest = sha256_of(file, progress)
        if _identity(file) == before:
            self._keep(before, digest)
        return digest

    def known(self, file: Path) -> str | None:
        """Return a file's SHA-256 if it is known as the file is now; nothing is read for it.

        Raises:
            OSError: there is no such file.
        """
        return self._known.get(_identity(file))

    def remember(self, file: Path, digest: str) -> None:
        """Keep the digest of a file that was hashed while it was written.

        Raises:
            OSError: the file is not there.
        """
        self._keep(_identity(file), digest)

    def _keep(self, identity: str, digest: str) -> None:
        with self._lock:
            self._known[identity] = digest
            while len(self._known) > KEPT_MAX:
                del self._known[next(iter(self._known))]
            if self._path is None:
                return
            try:
                write_private(self._path, msgspec.json.encode(self._known))
            except OSError as error:
                log.warning("the digests of model files are not kept: %s", error)


def _identity(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_dev}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"
