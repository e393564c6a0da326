"""File state: what tells one content of a file from the next, without reading it.

A loaded model is computed from memory: what is done to its file later changes no answer. But the
next load would find something else, which its operator should know before.
"""

from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """Which file it was, how long, and when it was written to."""

    device: int
    inode: int
    size: int
    modified_ns: int


def state_of(path: Path) -> FileState:
    """Return the state of a file now.

    Raises:
        OSError: it is not there, or its folder cannot be read.
    """
    found = path.stat()
    return FileState(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def change_of(path: Path, before: FileState) -> str | None:
    """Return what was done to a file since, in words that begin with its name; None: nothing."""
    try:
        now = state_of(path)
    except FileNotFoundError:
        return f"{path.name} is not on the disk any more"
    except OSError as error:
        return f"{path.name} cannot be reached any more: {error.strerror}"
    return None if now == before else f"{path.name} was changed on the disk"
