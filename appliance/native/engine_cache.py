"""Engine cache: the folder of built engines, one for each way of building, shared by environments.

Owns which of them are kept: the one that was asked for, and those used last beside it. Needs the
standard library alone, as `build` does.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEPT = 2
"""Engines that are kept beside the one that was used now: of other environments, or of a version
that somebody may go back to."""
_NAME = re.compile(r"[0-9a-f]{20}")


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Let no process remove an engine's folder during the block, and note that it was used."""
    descriptor = _held(folder)
    try:
        os.utime(descriptor)
        yield
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def remove_old(used: Path) -> int:
    """Remove old engines beside the one that is used; return how many bytes that freed.

    Left alone are the `KEPT` that were used last, whatever a process builds or installs now, what
    belongs to another user, and everything that is no engine's folder.
    """
    others = [folder for folder in _folders(used.parent) if folder != used]
    whole = [folder for folder in others if next(folder.glob("*.whl"), None) is not None]
    whole.sort(key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
    kept = whole[:KEPT]
    return sum(_remove(folder) for folder in others if folder not in kept)


def remove_all(cache: Path) -> int:
    """Remove every engine that no process builds or installs now; return the bytes freed."""
    return sum(map(_remove, _folders(cache))) if cache.is_dir() else 0


def _folders(cache: Path) -> list[Path]:
    """Return the folders of this user's engines."""
    return [
        Path(entry)
        for entry in os.scandir(cache)
        if _NAME.fullmatch(entry.name)
        and entry.is_dir(follow_symlinks=False)
        and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    ]


def _remove(folder: Path) -> int:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
    except OSError:
        return 0  # a process uses it, or it is not ours to remove
    finally:
        os.close(descriptor)
    return size


def _held(folder: Path) -> int:
    """Return a descriptor of a folder that nobody removes while it is open."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is(folder, descriptor):
                return descriptor
            os.close(descriptor)  # it was removed while this waited


def _is(path: Path, descriptor: int) -> bool:
    """Say whether a path is still the file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
