"""Results: the answers of a batch, each a line in a file, durable before it counts.

Owns the form of such a line and the two files of a batch while it runs. A line's id holds the
number of the line that it answers, so that a file that a crash left says by itself what is in it.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance.core.errors import StorageFull, StoreFailed
from appliance.store.datadir import sync_directory
from appliance.store.regular_file import open_private

HEAD = b'{"id":"batch_req_'


def line_id(batch_id: str, number: int) -> str:
    """Return the id of the answer to a line."""
    return f"batch_req_{batch_id.removeprefix('batch_')}_{number}"


def answered(
    batch_id: str, number: int, custom_id: str, *, request_id: str, status: int, body: bytes
) -> bytes:
    """Return the line of an answer; `body` is JSON."""
    return b"".join(
        (
            _head(batch_id, number, custom_id),
            b',"response":{"status_code":%d,"request_id":' % status,
            msgspec.json.encode(request_id),
            b',"body":',
            body,
            b'},"error":null}\n',
        )
    )


def unanswered(batch_id: str, number: int, custom_id: str, *, code: str, message: str) -> bytes:
    """Return the line of a request that was not carried out."""
    error = msgspec.json.encode({"code": code, "message": message})
    return b"".join(
        (_head(batch_id, number, custom_id), b',"response":null,"error":', error, b"}\n")
    )


def _head(batch_id: str, number: int, custom_id: str) -> bytes:
    name, custom = map(msgspec.json.encode, (line_id(batch_id, number), custom_id))
    return b'{"id":%b,"custom_id":%b' % (name, custom)


class ResultFile:
    """One of the two files of a batch; for one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is made if it is not there.

        Raises:
            OSError: it cannot be opened, or is not ours.
        """
        self.path = path
        self._handle = open_private(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.size = os.fstat(self._handle).st_size

    def __repr__(self) -> str:
        """Name the file and its size."""
        return f"<ResultFile {self.path.name} [{self.size} bytes]>"

    def recover(self, batch_id: str, known: int) -> Iterator[int]:
        """Yield the number of each line that is answered here; what is not whole is cut off.

        The first `known` bytes were durable before; what is behind them must be JSON.

        Raises:
            StoreFailed: the file is shorter than it was.
        """
        if self.size < known:
            raise StoreFailed(f"{self.path} has {self.size} bytes, and had {known}.")
        head = HEAD + batch_id.removeprefix("batch_").encode() + b"_"
        end = 0
        with os.fdopen(os.dup(self._handle), "rb") as file:
            file.seek(0)
            for line in file:
                number = _number(line, head, is_checked=end >= known)
                if number is None:
                    break
                end += len(line)
                yield number
        if end < known:
            raise StoreFailed(f"{self.path} holds other than what was written to it.")
        os.ftruncate(self._handle, end)
        os.fsync(self._handle)
        self.size = end

    def append(self, lines: list[bytes], *, free_min: int) -> None:
        """Write lines behind the others; they are on the disk when this returns, or none is.

        Raises:
            StorageFull: the disk would have less than `free_min` bytes left.
            OSError: it cannot be written.
        """
        content = b"".join(lines)
        disk = os.fstatvfs(self._handle)
        if disk.f_bavail * disk.f_frsize < free_min + len(content):
            raise StorageFull
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._handle, self.size)
            raise
        self.size += len(content)

    def close(self) -> None:
        """Close it; one that is empty is removed."""
        os.close(self._handle)
        if not self.size:
            self.path.unlink(missing_ok=True)
        sync_directory(self.path.parent)


def _number(line: bytes, head: bytes, *, is_checked: bool) -> int | None:
    """Return which line is answered; None: it is no whole line."""
    if not line.startswith(head) or not line.endswith(b"}\n"):
        return None
    digits = line[len(head) : len(head) + 20].partition(b'"')[0]
    if not digits.isdigit():
        return None
    if is_checked:
        try:
            msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    return int(digits)
