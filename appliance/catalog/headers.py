"""Headers: those of the files that were looked at last, so that a load does not parse them again.

Owns how many are kept: one of a large vocabulary takes tens of megabytes.
"""

from functools import lru_cache
from pathlib import Path

from appliance.catalog.header import Header
from appliance.catalog.header_parser import read_header
from appliance.core.errors import InvalidModelFile

KEPT = 2
"""Files: one that is loaded and one that comes next."""


def header_of(path: Path) -> Header:
    """Return the header of a GGUF file as it is now, checked.

    Raises:
        InvalidModelFile: as `read_header` says.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise InvalidModelFile(path, f"cannot be read: {error.strerror or error}") from error
    return _read(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=KEPT)
def _read(path: Path, *_identity: int) -> Header:
    return read_header(path)
