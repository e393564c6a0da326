"""Listen address: from the setting `host` to the one IP address that the server binds.

Owns the look-up of names. The result is a literal address, so that every later check (loopback,
the operator's guard, the URL for commands) and the bind itself mean the same one.
"""

import ipaddress
import socket

from appliance.core.errors import InvalidSettings


def resolved(host: str) -> str:
    """Return the IP address that a host names.

    An IPv6 address may stand in brackets. `localhost` is 127.0.0.1 where that exists.

    Raises:
        InvalidSettings: it is empty, no name that can be looked up, a name of several addresses,
            or an address that no server can be bound to.
    """
    name = host.strip().removeprefix("[").removesuffix("]")
    if not name:
        raise _refused("is empty; 127.0.0.1 is for this machine alone, 0.0.0.0 for all networks")
    found = _addresses(name, host)
    if len(found) > 1 and all(ipaddress.ip_address(each).is_loopback for each in found):
        return min(found, key=lambda each: ipaddress.ip_address(each).version)
    if len(found) > 1:
        raise _refused(f"{host} has several addresses; name one of them: {', '.join(found)}")
    address = ipaddress.ip_address(found[0])
    if address.is_multicast or found[0] == "255.255.255.255":
        raise _refused(f"{host} is no address of one machine")
    return str(address)


def _addresses(name: str, host: str) -> list[str]:
    """Return the distinct addresses of a name, in the resolver's order."""
    try:
        rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: no name at all, of letters or of length
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if name in (interface for _, interface in socket.if_nameindex()):
            reason = "it is a network interface; name its address"
        raise _refused(f"{host} is neither an address nor a name that is known: {reason}") from None
    found = list(dict.fromkeys(str(row[4][0]) for row in rows))
    if any("%" in each for each in found):
        raise _refused(f"{host} is link-local, and addresses with a zone are not supported")
    return found


def _refused(reason: str) -> InvalidSettings:
    return InvalidSettings("settings", "host", reason)
