"""FilesInPlace: the database and its log, as they were when they were opened.

Owns the check before each commit that both still have their names. A file that was removed or
replaced can be written to as before, and what is written will never be read.
"""

from pathlib import Path


class FilesInPlace:
    """The two files of one open database."""

    def __init__(self, database: Path) -> None:
        self._paths = (database, database.with_name(f"{database.name}-wal"))
        self._inodes = [_inode(path) for path in self._paths]

    def require(self) -> None:
        """Refuse to write into a file that was removed or replaced: it will never be read.

        Raises:
            RuntimeError: one of them was removed or replaced.
        """
        for number, path in enumerate(self._paths):
            inode = _inode(path)
            if self._inodes[number] is None:
                self._inodes[number] = inode  # SQLite makes the log when it is first needed
            elif inode != self._inodes[number]:
                raise RuntimeError("the database or its log was removed or replaced")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
