"""Listener: the listening socket, made by us and handed to whatever serves it.

Owns how it is made. It outlives the process that accepts from it when another one keeps it open:
the kernel then holds new connections until the next process accepts them.
"""

import socket

from appliance.core.errors import InvalidSettings
from appliance.descriptors import CONNECTIONS_MAX


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, without blocking, on a literal address.

    Raises:
        InvalidSettings: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a server that has just ended may still be closing; that is no conflict.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # The kernel takes the smaller of this and its own bound.
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise InvalidSettings(
            "settings", "port", f"cannot listen on {host}:{port}: {error.strerror}"
        ) from None
    return listener
