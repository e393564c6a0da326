"""Last words: the stacks that a dying process wrote, for the log of the next one.

Owns the file that faulthandler writes to when native code ends the process by SIGSEGV, SIGABRT,
SIGBUS, SIGFPE or SIGILL. It names threads, files and functions, and no values.
"""

import faulthandler
import os
from pathlib import Path

LINES_MAX = 60
BYTES_MAX = 64_000


def take(path: Path) -> list[str]:
    """Return what the last process wrote, and have this one write there when it dies.

    Empty: the last one did not die of native code. Where the file cannot be opened, nothing is
    read, and stacks go to standard error.
    """
    lines: list[str] = []
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags, 0o600), "rb+", buffering=0)
    except OSError:
        faulthandler.enable()
        return lines
    file.seek(0)
    lines = (file.read(BYTES_MAX) or b"").decode("utf-8", "replace").splitlines()[:LINES_MAX]
    file.truncate(0)
    # The file stays open for as long as the process lives; faulthandler keeps its descriptor.
    faulthandler.enable(file, all_threads=True)
    return lines
