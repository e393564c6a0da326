"""Pip: the package installer of this interpreter, run as a process.

Owns where it comes from: an environment that was made by another installer has none of its own, and
then the one that travels with Python is used as it lies there. Needs the standard library alone.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

HEARTBEAT_S = 30
"""Seconds between two lines that a build goes on."""
LINES = 30
"""Of its output, when it fails."""

Say = Callable[[str], None]
DEBIAN = Path("/usr/share/python-wheels")
"""Where Debian keeps the wheels that it has taken out of Python's own package."""


class BuildFailed(Exception):
    """The engine could not be built or installed; the message says why and what to do."""


def run(arguments: Sequence[str], say: Say, environment: Mapping[str, str]) -> None:
    """Run pip and wait for it; say now and then that it goes on.

    Raises:
        BuildFailed: it refuses, or there is none; the message has its last lines.
    """
    # -P: no module of the current folder is run in the place of one of pip's.
    command = [sys.executable, "-P", *_program(), "--disable-pip-version-check", *arguments]
    done = threading.Event()

    def beat() -> None:
        waited = 0
        while not done.wait(HEARTBEAT_S):
            waited += HEARTBEAT_S
            say(f"still working after {waited} s")

    threading.Thread(target=beat, daemon=True).start()
    try:
        ran = subprocess.run(  # noqa: S603 - our own interpreter and arguments
            command, env=dict(environment), capture_output=True, text=True, check=False
        )
    finally:
        done.set()
    if ran.returncode != 0:
        raise BuildFailed("\n".join((ran.stdout + ran.stderr).splitlines()[-LINES:]))


def _program() -> list[str]:
    if find_spec("pip") is not None:
        return ["-m", "pip"]
    # Debian's Python has no such module where its package for virtual environments is missing.
    bundling = find_spec("ensurepip")
    origin = None if bundling is None else bundling.origin
    bundled = [] if origin is None else [Path(origin).parent / "_bundled"]
    for folder in (*bundled, DEBIAN):
        wheel = next(folder.glob("pip-*.whl"), None)
        if wheel is not None:
            return [str(wheel / "pip")]
    raise BuildFailed(f"needs pip in this environment: {sys.executable} has none")
