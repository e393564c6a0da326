"""Placement: a finished file gets the name that somebody asked for.

Owns what may lie there before: nothing, or a regular file that is to be replaced. A link or a
device at the name is neither followed nor replaced.
"""

import errno
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from appliance.core.errors import InvalidRequest
from appliance.store.datadir import sync_directory


def require_place(target: Path, own: Path, *, overwrite: bool) -> None:
    """Refuse a path that a file cannot be given; `own` is the data directory, which is no place.

    Raises:
        InvalidRequest: as said; `param` is `path`.
    """
    if not target.is_absolute():
        raise InvalidRequest(f"{target} is not an absolute path.", param="path")
    if not target.parent.is_dir():
        raise InvalidRequest(f"there is no directory {target.parent}.", param="path")
    if target.parent.resolve() == own.resolve():
        raise InvalidRequest(
            f"{target} is among the server's own files; choose another directory.", param="path"
        )
    require_free(target, overwrite=overwrite)


def require_free(target: Path, *, overwrite: bool) -> None:
    """Refuse a name that is taken, unless by a regular file that is to be replaced.

    Raises:
        InvalidRequest: as said; `param` is `path`.
    """
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise InvalidRequest(
            f"{target} exists; choose another name: it is no regular file.", param="path"
        )
    if not overwrite:
        raise InvalidRequest(f"{target} exists; choose another name.", param="path")


def place(part: Path, target: Path, *, overwrite: bool) -> None:
    """Move a file to its name, durably; it may come from another disk.

    Raises:
        InvalidRequest: the name is taken; `param` is `path`.
        OSError: it cannot be written.
    """
    require_free(target, overwrite=overwrite)
    if part.stat().st_dev != target.parent.stat().st_dev:
        near = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            _copy(part, near)
            place(near, target, overwrite=overwrite)
        finally:
            near.unlink(missing_ok=True)
        part.unlink()
        return
    if overwrite:
        part.replace(target)
    else:
        _take_name(part, target)
    sync_directory(target.parent)


def _take_name(part: Path, target: Path) -> None:
    """Give the file a name that nobody took since; `replace` would take it from whoever did."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise InvalidRequest(f"{target} exists; choose another name.", param="path") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        part.replace(target)  # a file system without hard links
    else:
        with suppress(FileNotFoundError):
            part.unlink()


def _copy(source: Path, target: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as copy, source.open("rb") as read:
        shutil.copyfileobj(read, copy)
        copy.flush()
        os.fsync(copy.fileno())
