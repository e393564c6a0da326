"""Port: the claim to be the only server of ours on a TCP port.

Owns the probe and a lock named by the port. Granian listens with SO_REUSEPORT, so that a second
server would not be refused by the kernel: the two would share the port's clients, silently.
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
    """Own the port against other servers of this user until the block ends.

    Raises:
        InvalidSettings: someone listens there, or another of our servers is about to.
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
    """Refuse a port that someone listens on.

    Raises:
        InvalidSettings: as said.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of a server that just ended may linger; they are no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InvalidSettings(
                "settings", "port", f"cannot listen on {host}:{port}: {error.strerror}"
            ) from None
