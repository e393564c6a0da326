"""FileStore: the files of keys, on the disk and in the books.

Owns the order of both: a file is on the disk before its row is written, and its row is gone before
the file is. What a crash leaves in between is a file without a row, which the next start removes.
"""

import asyncio
import errno
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from appliance.accounts.key import Key
from appliance.core import ids
from appliance.core.cancellation import uninterrupted
from appliance.core.clock import MICROSECONDS_PER_DAY, Clock
from appliance.core.errors import (
    BodyTooLarge,
    FileNotFound,
    InvalidRequest,
    QueueFull,
    StorageFull,
)
from appliance.core.limits import Limits
from appliance.ledger import batches, files
from appliance.ledger.files import StoredFile
from appliance.store.datadir import sync_directory
from appliance.store.reader import reading
from appliance.store.regular_file import open_private
from appliance.store.write_request import Operation, T
from appliance.store.writer import Writer

log = logging.getLogger("gigarouter.files")

BUFFER_BYTES = 1_000_000
"""What is gathered of an upload before it is written."""
FULL = (errno.ENOSPC, errno.EDQUOT)
UPLOAD_RETRY_S = 5
EXPIRED_MAX = 100
"""Files deleted in one operation: calls wait for the writer meanwhile."""


class Upload:
    """A file that is arriving.

    A caller that is cancelled waits for the thread that writes: nothing closes the file under it.
    """

    def __init__(self, path: Path, limits: Limits, room: int) -> None:
        """`room` is how many bytes the key may still have."""
        self._limits, self._room = limits, room
        self._buffer = bytearray()
        self.size = 0
        self.is_kept = False
        """Whether the books have it."""
        self._file = os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", 0)

    async def write(self, data: bytes | bytearray) -> None:
        """Take more of it.

        Raises:
            BodyTooLarge, InvalidRequest: it is larger than a file, or this key's files, may be.
            StorageFull: the disk is full.
        """
        self.size += len(data)
        if self.size > self._limits.file_bytes_max:
            raise BodyTooLarge(bytes_max=self._limits.file_bytes_max)
        if self.size > self._room:
            raise InvalidRequest(
                f"this key's files may take {self._limits.files_bytes_per_key_max} bytes in all: "
                "delete some",
                param="file",
            )
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what was gathered.

        Raises:
            StorageFull: the disk is full.
        """
        content, self._buffer = self._buffer, bytearray()
        await uninterrupted(asyncio.to_thread(self._write, content))

    async def finish(self) -> None:
        """Make all of it durable.

        Raises:
            StorageFull: the disk is full.
        """
        await self.flush()
        await uninterrupted(asyncio.to_thread(self._sync))

    def _sync(self) -> None:
        with _disk_errors():
            os.fsync(self._file.fileno())

    def _write(self, content: bytearray) -> None:
        disk = os.fstatvfs(self._file.fileno())
        if disk.f_bavail * disk.f_frsize < self._limits.files_free_bytes_min + len(content):
            raise StorageFull
        view = memoryview(content)
        with _disk_errors():
            while view:
                view = view[self._file.write(view) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Tell a full disk from one that fails."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull from error
        raise


class FileStore:
    """Keeps the files of all keys."""

    def __init__(self, folder: Path, writer: Writer, clock: Clock, limits: Limits) -> None:
        self._folder = folder
        self._writer = writer
        self._clock = clock
        self._limits = limits
        self._arriving: Counter[str] = Counter()
        """Uploads of each key that are not ended."""

    def __repr__(self) -> str:
        """Say how many are arriving."""
        return f"<FileStore [{self._arriving.total()} arriving]>"

    @asynccontextmanager
    async def arriving(self, key: Key, taken: files.Used) -> AsyncIterator[tuple[str, Upload]]:
        """Yield the id of a new file and where it is written; without a row it is removed again.

        Raises:
            InvalidRequest: the key has as many files as it may have.
            QueueFull: too many of them arrive now.
        """
        limits = self._limits
        bytes_max, files_max = limits.files_bytes_per_key_max, limits.files_per_key_max
        files.require_room(taken, 0, bytes_max=bytes_max, files_max=files_max)
        if self._arriving[key.id] >= limits.uploads_per_key_max:
            raise QueueFull(retry_after_s=UPLOAD_RETRY_S)
        self._arriving[key.id] += 1
        file_id = ids.file_id()
        upload = None
        try:
            upload = Upload(self._folder / file_id, limits, bytes_max - taken.bytes)
            yield file_id, upload
        finally:
            try:
                if upload is not None:
                    await uninterrupted(asyncio.to_thread(self._end, file_id, upload))
            finally:
                self._arriving[key.id] -= 1
                if not self._arriving[key.id]:
                    del self._arriving[key.id]

    def _end(self, file_id: str, upload: Upload) -> None:
        """Close a file, and remove it if it has no row; many megabytes take their time."""
        upload.close()
        if not upload.is_kept:
            self._remove([file_id])

    async def used(self, key: Key) -> files.Used:
        """Return what a key's files take."""
        return await self._read(lambda connection: files.used(connection, key.id))

    async def keep(self, key: Key, file_id: str, upload: Upload, filename: str) -> StoredFile:
        """Give a file that has arrived to its key, even if the caller is cancelled meanwhile.

        Raises:
            InvalidRequest: the key has more than it may have, by now.
            StorageFull, LedgerUnavailable: it cannot be kept.
        """
        return await uninterrupted(self._keep(key, file_id, upload, filename))

    async def _keep(self, key: Key, file_id: str, upload: Upload, filename: str) -> StoredFile:
        await upload.finish()
        await asyncio.to_thread(sync_directory, self._folder)
        now_us, limits = self._clock.wall_us(), self._limits
        file = StoredFile(
            id=file_id,
            key_id=key.id,
            filename=filename,
            purpose="batch",
            bytes=upload.size,
            created_us=now_us,
            expires_us=now_us + limits.file_days * MICROSECONDS_PER_DAY,
        )

        bytes_max, files_max = limits.files_bytes_per_key_max, limits.files_per_key_max
        await self._writer.run(
            lambda connection: files.keep(
                connection, file, bytes_max=bytes_max, files_max=files_max
            ),
            essential=False,
        )
        upload.is_kept = True
        return file

    async def find(self, key: Key, file_id: str) -> StoredFile:
        """Return a file of a key.

        Raises:
            FileNotFound: this key has none with this id, or its time is over.
        """
        found = await self._read(lambda connection: files.find(connection, key.id, file_id))
        if found is None or found.expires_us <= self._clock.wall_us():
            raise FileNotFound(file_id)
        return found

    async def page(
        self, key: Key, *, purpose: str | None, after: str | None, limit: int
    ) -> tuple[list[StoredFile], bool]:
        """Return up to `limit` of a key's files, the newest first, and whether there are more.

        Raises:
            FileNotFound: `after` is no file of this key.
        """
        last = None if after is None else await self.find(key, after)
        found = await self._read(
            lambda connection: files.page(
                connection, key.id, purpose=purpose, after=last, limit=limit + 1
            )
        )
        return found[:limit], len(found) > limit

    def open(self, file: StoredFile) -> BinaryIO:
        """Return what is in a file.

        Raises:
            FileNotFound: the disk does not have it.
        """
        try:
            return os.fdopen(open_private(self._folder / file.id, os.O_RDONLY), "rb")
        except OSError as error:
            log.warning("%s cannot be read: %s", file.id, error)
            raise FileNotFound(file.id) from None

    async def delete(self, key: Key, file_id: str) -> None:
        """Delete a file.

        Raises:
            FileNotFound: this key has none with this id.
            InvalidRequest: a batch that has not ended reads it.
            LedgerUnavailable: the books cannot be written.
        """
        await self._writer.run(lambda connection: files.delete(connection, key.id, file_id))
        await asyncio.to_thread(self._remove, [file_id])

    async def expire(self) -> int:
        """Delete some files whose time is over, or whose keys were revoked; return how many.

        Raises:
            LedgerUnavailable: the books cannot be written.
        """
        now_us = self._clock.wall_us()
        gone = await self._writer.run(
            lambda connection: files.expire(connection, now_us, EXPIRED_MAX)
        )
        await asyncio.to_thread(self._remove, gone)
        return len(gone)

    def _remove(self, names: list[str]) -> None:
        """Remove files without rows; one that cannot be removed is left to the sweep."""
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s is not removed yet: %s", name, error)

    async def _read(self, question: Operation[T]) -> T:
        return await asyncio.to_thread(read, self._writer.path, question)


def read(path: Path, question: Operation[T]) -> T:
    """Return the answer of the books to a question; not for the loop's thread."""
    with reading(path) as connection:
        return question(connection)


def sweep(folder: Path, writer: Writer) -> None:
    """Remove what a crash has left: files without a row that no batch writes to."""
    with reading(writer.path) as connection:
        known = files.names(connection)
        for batch in batches.unfinished(connection):
            known |= {batch.output_file, batch.error_file}
    removed = 0
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name.startswith("file-") and path.name not in known:
                path.unlink()
                removed += 1
    if removed:
        log.info("removed %d files that a crash has left", removed)
