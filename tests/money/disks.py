"""Disks of a test's own: small ones that fill up, and ones that turn read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A file system in memory, mounted for one test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave not a byte free."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1024 * 1024, 4_096, 1):
                try:
                    while True:
                        file.write(b"\xa5" * size)
                except OSError:
                    continue
        assert os.statvfs(self.path).f_bavail == 0

    def free(self) -> None:
        """Take away what filled it."""
        self._filler.unlink()

    def remount(self, how: str) -> None:
        """Make it read-only ("ro") or writable ("rw") again."""
        _run("mount", "-o", f"remount,{how}", str(self.path))


@contextmanager
def mounted(path: Path, *, megabytes: int) -> Iterator[Disk]:
    """Mount a small disk at `path`; skip the test where that is not allowed."""
    if os.getuid() != 0:
        pytest.skip("only root mounts a disk")
    path.mkdir(parents=True, exist_ok=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        yield Disk(path)
    finally:
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
