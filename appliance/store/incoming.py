"""Incoming: notes in the data directory by which a command asks the server to read a path.

Owns `incoming/`. A request over HTTP names a path of this machine and a note; the note is a link to
that path, which only this machine's operator can make. Without it the request is refused before
anything is looked at, so that the API tells nobody which paths exist.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.core.errors import InvalidRequest

NAME = re.compile(r"[0-9a-f]{32}")


@contextmanager
def noted(folder: Path, path: str) -> Iterator[str]:
    """Yield the name of a note for a path, which is removed at the end of the block.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = secrets.token_hex(16)
    note = folder / name
    note.symlink_to(path)
    try:
        yield name
    finally:
        note.unlink(missing_ok=True)


def require_noted(folder: Path, path: str, name: str | None) -> None:
    """Refuse a path without a note; one note serves one request.

    Raises:
        InvalidRequest: the same whatever lies at the path; `param` is `path`.
    """
    if name is not None and NAME.fullmatch(name):
        note = folder / name
        with suppress(OSError):
            target = str(note.readlink())
            note.unlink()
            if target == path:
                return
    raise InvalidRequest(
        "A file of the server's machine is added there, with `gigarouter models add PATH`.",
        param="path",
    )


def sweep(folder: Path) -> None:
    """Remove notes of commands that were killed."""
    with suppress(OSError):
        for note in folder.iterdir():
            if NAME.fullmatch(note.name) and note.is_symlink():
                note.unlink()
