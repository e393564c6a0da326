"""Assets: the files that pages load: styles, scripts and one picture.

Owns their names: each holds a hash of the file's content, so that a browser keeps a file for ever
and yet has the new one as soon as a page names it.
"""

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PATH = "/static/"
FOLDER = Path(__file__).with_name("static")
HASH_DIGITS = 12
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
"""Kinds of files that are served; all others in the folder are for people."""


@dataclass(frozen=True)
class Asset:
    """One file."""

    name: str
    """With the hash of its content: `site.0123456789ab.css`."""
    content: bytes
    media_type: str

    @cached_property
    def packed(self) -> bytes:
        """The content in gzip; a second of work for the largest, done once."""
        return gzip.compress(self.content, compresslevel=9, mtime=0)


class Assets:
    """The files of one folder; they are read once, and do not change while the program runs."""

    def __init__(self, folder: Path = FOLDER) -> None:
        found = [
            (path.name, _asset(path)) for path in sorted(folder.iterdir()) if path.suffix in TYPES
        ]
        self._urls = {plain: PATH + asset.name for plain, asset in found}
        self._by_name = {asset.name: asset for _, asset in found}

    def __iter__(self) -> Iterator[Asset]:
        """Return all of them by name."""
        return iter(self._by_name.values())

    def url(self, plain: str) -> str:
        """Return where a file is found that pages know as `plain`.

        Raises:
            KeyError: there is no such file.
        """
        return self._urls[plain]

    def find(self, name: str) -> Asset | None:
        """Return the file with this name, hash included, or None."""
        return self._by_name.get(name)


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
    return Asset(f"{path.stem}.{digest}{path.suffix}", content, TYPES[path.suffix])
