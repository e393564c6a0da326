"""Port: makes sure that one gigarouter alone listens on a TCP port.

Owns a check that the port is free and a lock file named by the port: of two servers which start at
once one is refused before it opens anything, also where a system lets a wildcard address and one of
this machine share a port.
"""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.core.errors import InvalidSettings


@contextmanager
def claimed(host: str, port: int) -> Iterator[None]:
    """Hold the port against other servers of this user until the block ends.

    `host` is a literal address.

    Raises:
        InvalidSettings: a process listens there, or another gigarouter is starting there.
    """
    path = Path(tempfile.gettempdir()) / f"gigarouter-{os.getuid()}-{port}.lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        raise InvalidSettings("settings", "port", f"{path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidSettings(
                "settings", "port", f"cannot listen on {host}:{port}: another server starts there"
            ) from None
        require_free(host, port)
        yield
    finally:
        os.close(handle)


def require_free(host: str, port: int) -> None:
    """Refuse a port on which a process listens.

    Raises:
        InvalidSettings: as said.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of a server that has just ended may still be closing; that is no conflict.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InvalidSettings(
                "settings", "port", f"cannot listen on {host}:{port}: {error.strerror}"
            ) from None
