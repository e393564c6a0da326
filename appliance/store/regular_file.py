"""Regular file: a file that somebody named, or one of ours, opened only if it is one.

Owns the refusal of pipes, devices and sockets (opening or reading one can wait for ever), and for
files of ours that of links and of other users' files.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from appliance.store.ownership import Owners

NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Not blocking: a pipe may lie in the file's place."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a link to a file is followed.

    Raises:
        OSError: it cannot be read, or is no regular file; `strerror` says which.
    """
    _require_regular(path.stat())  # opening a device can do something already
    # Not blocking: a pipe may have come in the file's place since.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _require_regular(os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _require_regular(found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
    raise OSError(errno.EINVAL, f"it is {kind}, and no file")


def open_private(path: Path, flags: int) -> int:
    """Open a file of ours, 0600 if it is made now; return its descriptor. No link is followed.

    Raises:
        OSError: it cannot be opened, is no regular file, or is not ours; `strerror` says which.
    """
    try:
        handle = os.open(path, flags | NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = "it is a symbolic link; put the file itself there"
        raise
    try:
        found = os.fstat(handle)
        _require_regular(found)
        _require_own(found, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _require_own(found: os.stat_result, path: Path) -> None:
    if fault := Owners.of(path.parent).fault(found):
        raise OSError(errno.EPERM, fault, str(path))


def read_private(path: Path) -> bytes:
    """Return what is in a file of ours.

    Raises:
        OSError: as for `open_private`.
    """
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()
