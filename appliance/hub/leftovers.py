"""Leftovers: what downloads left in the folder of models, and nobody went on with."""

import logging
import re
import shutil
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("gigarouter.hub")

KEPT_DAYS = 30
"""How long a part waits for the next pull of the same file."""
US_PER_DAY = 86_400_000_000
SCRATCH = "header-"
"""How folders begin in which files are looked at before they are fetched."""
NAMES = re.compile(
    r"[0-9a-f]{64}\.(part|header)"
    r"|[0-9a-f]{12}-[0-9a-f]{12}\.(parts|converted)"
    rf"|{SCRATCH}.*"
    r"|.*\.gguf\.arrived",
    re.ASCII,
)
"""What downloads write, and what earlier versions wrote."""


def sweep(folder: Path, *, now_us: int) -> None:
    """Remove parts that were not written to for `KEPT_DAYS`."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if NAMES.fullmatch(path.name) is None:
                continue
            with suppress(OSError):
                if now_us - _changed_us(path) > KEPT_DAYS * US_PER_DAY:
                    log.info("%s is removed: nobody went on with it", path.name)
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _changed_us(path: Path) -> int:
    """Return when a file, or the youngest one of a folder, was written to."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return max(each.lstat().st_mtime_ns for each in paths) // 1000
