"""HTTP server: Granian in our own event loop, over a listening socket of ours.

Owns every use of Granian, and the bounds that it enforces.
"""

import os
import socket
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from appliance.core.errors import InvalidSettings
from appliance.descriptors import CONNECTIONS_MAX
from appliance.settings import Settings

HEADER_TIMEOUT_MS = 60_000
"""For a request's head; Granian counts the idle time of a kept connection too, so that a shorter
one would reset the connections that clients keep for their next call."""
HEAD_BYTES_MAX = 65_536
"""Bytes of a request's head, above which 431 is answered (of about twice as many where they arrive
at once); also of a piece of a body. Each connection may fill this buffer without a key."""


class HttpServer(Server):
    """Serves an application on a socket that listens already."""

    def __init__(self, app: object, listener: socket.socket, **options: Any) -> None:
        """Prepare; the socket stays its owner's, who closes it."""
        super().__init__(app, **options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        """Take our socket in the place of one that is bound here.

        Its own are bound with SO_REUSEPORT: what waits at one of them when a process dies is
        reset, and a second server would silently share the port.
        """
        number = os.dup(self._listener.fileno())
        # The stub that comes with it leaves out its constructor, and the types of these.
        holder: Any = SocketHolder
        self._ssp = None
        self._shd = holder(number, False, CONNECTIONS_MAX)
        self._sfd = None  # the holder's, which closes it


def http_server(
    app: object, settings: Settings, listener: socket.socket, *, connections_max: int
) -> HttpServer:
    """Return a server that `serve` starts.

    Raises:
        InvalidSettings: the certificate or its key cannot be used.
    """
    secure = bool(settings.tls.cert)
    try:
        return HttpServer(
            app,
            listener,
            address=settings.host,
            port=settings.port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            # Granian counts connections, idle ones too, and accepts none above this, silently.
            backlog=CONNECTIONS_MAX,
            backpressure=connections_max,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=HEAD_BYTES_MAX
            ),
            log_enabled=False,
            ssl_cert=Path(settings.tls.cert) if secure else None,
            ssl_key=Path(settings.tls.key) if secure else None,
        )
    except OSError as error:  # ssl.SSLError is one
        files = f"{settings.tls.cert}, {settings.tls.key}"
        raise InvalidSettings("settings", "tls", f"{files}: {error}") from None
