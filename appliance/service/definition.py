"""Definition: what a service manager is told about a server, whichever manager it is.

Owns the flags that a service is started with, and which texts and places it cannot have.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.core.errors import ServiceRefused

Scope = Literal["system", "user"]

NAME = "gigarouter"
SYSTEM_DATA_DIR = Path("/var/lib") / NAME
"""Where systemd keeps what belongs to a system service that has no user of its own."""
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - they are compared, not written to
STOP_SECONDS = 60
"""A server ends 48 s after SIGTERM at the latest, its supervisor a second later."""
FLAGS = {
    "host": "--host",
    "port": "--port",
    "lan": "--lan",
    "insecure_http": "--insecure-http",
    "tls.cert": "--tls-cert",
    "tls.key": "--tls-key",
}
"""Flags of `serve` that say where and to whom it listens, by setting."""
CREDENTIALS = ("tls.cert", "tls.key")
"""Settings that name a file which a service's own user may not be able to read."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A server as a service."""

    scope: Scope
    """Of the machine, which starts at boot, or of one user."""
    program: tuple[str, ...]
    """What runs gigarouter; the first word is an absolute path."""
    code: tuple[Path, ...]
    """What must be readable for that: the interpreter, what it is a link to, the packages."""
    data_dir: Path
    listening: tuple[tuple[str, str], ...]
    """Settings of `FLAGS` and their values; an empty value: the flag has none."""
    port: int
    user: str = ""
    """Whom a system service runs as; empty: a user that exists while it runs."""
    has_gpu: bool = False

    @property
    def is_dynamic(self) -> bool:
        """Say whether the service manager makes a user for it."""
        return self.scope == "system" and not self.user

    @property
    def credentials(self) -> dict[str, Path]:
        """Files with secrets, by setting."""
        return {name: Path(value) for name, value in self.listening if name in CREDENTIALS}

    def reaches(self, *folders: Path) -> bool:
        """Say whether it reads or writes anything in one of the folders."""
        paths = (*self.code, self.data_dir, *self.credentials.values())
        return any(path.is_relative_to(folder) for path in paths for folder in folders)

    def command(self, places: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line of its server; `places` stand for the values of settings."""
        words = [*self.program, "serve", "--data-dir", str(self.data_dir)]
        for name, value in self.listening:
            words.append(FLAGS[name])
            if value:
                words.append((places or {}).get(name, value))
        return words


def require_plain(definition: Definition) -> None:
    """Refuse texts that no service manager's file can hold.

    Raises:
        ServiceRefused: a word of the command line has a control character, is no UTF-8 or ends in
            a backslash; or the path of the program has a quote.
    """
    if set(definition.program[0]) & set("'\"\\"):
        raise ServiceRefused(
            f"{definition.program[0]!r} has a quote or a backslash in its path, which systemd does "
            "not run; install gigarouter elsewhere"
        )
    for word in (*definition.command(), definition.user):
        if any(char < " " or char == "\x7f" for char in word):
            raise ServiceRefused(f"{word!r} has a control character; give it another name")
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise ServiceRefused(f"{word!r} is not UTF-8; give it another name")
        if word.endswith("\\"):
            raise ServiceRefused(f"{word!r} ends in a backslash; give it another name")


def require_open(definition: Definition) -> None:
    """Refuse what the server could not read.

    Raises:
        ServiceRefused: a file of TLS is not there; or the program is closed to the user whom
            systemd makes: names the folder, and what to do.
    """
    for name, path in definition.credentials.items():
        if not path.is_file():
            raise ServiceRefused(f"{name}: there is no file {path}; gigarouter tls make makes one")
    if not definition.is_dynamic:
        return
    for path in definition.code:
        folder = closed_folder(path)
        if folder is not None:
            raise ServiceRefused(
                f"{path} cannot be read by the service's user: {folder} is closed to others. "
                "Install gigarouter for the whole machine, with an interpreter that everybody may "
                "run (/usr/bin/python3 -m venv /opt/gigarouter), or use --user"
            )


def closed_folder(path: Path) -> Path | None:
    """Return the first folder on the way to a file that other users may not enter."""
    for folder in reversed(path.parents):
        if not stat.S_IMODE(folder.stat().st_mode) & stat.S_IXOTH:
            return folder
    return None
