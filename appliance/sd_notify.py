"""sd_notify: tells systemd how a service is, if systemd started it.

Owns the protocol of sd_notify(3): datagrams to the socket that `NOTIFY_SOCKET` names.
"""

import socket
from contextlib import suppress

from appliance.settings import notify_socket


def notify(state: str) -> None:
    """Send one assignment, like `READY=1`; where nobody listens, nothing happens."""
    address = notify_socket()
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)  # a manager that does not read must not hold us
        # An address that begins with @ is in the abstract namespace.
        sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
