"""Bounded file: lines that many may append to, kept short, with a few older files beside it.

Owns the sizes and the names of the older files: `NAME.1` is the newest of them.
"""

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from appliance.store.regular_file import NOFOLLOW, open_private

BYTES_MAX = 8_000_000
"""Of the file that is written; a line may end behind it."""
KEPT = 3
"""Older files beside it."""


def append(path: Path, content: bytes, *, bytes_max: int = BYTES_MAX, kept: int = KEPT) -> None:
    """Append to a file, 0600, after it was given another name if it is long; no link is followed.

    Raises:
        OSError: it cannot be written, or is not ours.
    """
    handle = _locked_at_its_name(path)
    try:
        if os.fstat(handle).st_size >= bytes_max:
            _make_room(path, kept)
            path.replace(_older(path, 1))
            os.close(handle)
            handle = _locked_at_its_name(path)
        os.write(handle, content)
    finally:
        os.close(handle)


def _locked_at_its_name(path: Path) -> int:
    """Open the file for appending, and hold its lock: nobody renames it meanwhile."""
    while True:
        handle = open_private(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if _is_at(path, os.fstat(handle)):
                return handle
        os.close(handle)  # it got another name before we had the lock


def shift_if_long(handle: int, path: Path, *, bytes_max: int = BYTES_MAX, kept: int = KEPT) -> bool:
    """Empty an open file that is long and lies at `path`, after it was copied; say if it was done.

    For a file that others have open, too, and write at its end (`O_APPEND`): it cannot be given
    another name, since they would follow it.
    """
    found = os.fstat(handle)
    if found.st_size < bytes_max or not stat.S_ISREG(found.st_mode):
        return False
    if not _is_at(path, found):
        return False
    _make_room(path, kept)
    copy = open_private(_older(path, 1), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(copy, "wb") as target, os.fdopen(os.open(path, NOFOLLOW), "rb") as source:
        shutil.copyfileobj(source, target)
    os.ftruncate(handle, 0)
    return True


def files(path: Path, *, kept: int = KEPT) -> list[Path]:
    """Return the file and its older ones as far as they exist, oldest first."""
    every = [*(_older(path, number) for number in range(kept, 0, -1)), path]
    return [each for each in every if each.is_file() and not each.is_symlink()]


def _is_at(path: Path, found: os.stat_result) -> bool:
    there = path.lstat()
    return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)


def _make_room(path: Path, kept: int) -> None:
    """Free the name of the newest older file, and remove the oldest."""
    for number in range(kept, 1, -1):
        if os.path.lexists(_older(path, number - 1)):
            _older(path, number - 1).replace(_older(path, number))
    if kept == 1:
        _older(path, 1).unlink(missing_ok=True)


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
