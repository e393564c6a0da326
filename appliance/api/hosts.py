"""Hosts: whether a request was meant for this server, and which pages may send one.

A page of another site can have a browser call a server of this machine or network: across origins,
or under a name of its own that it lets point here (DNS rebinding). Such a request carries the
other's name as `Host`, or its origin. Names are therefore known beforehand; addresses are always
taken, because a page that is read from an address is this server's own.
"""

import re
from collections.abc import Iterable, Mapping

from appliance.core.address import is_address, is_loopback
from appliance.core.errors import ForeignOrigin, UnknownHost

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"https?://(.+)", re.ASCII)
PORT_MAX = 65_535


class Hosts:
    """The names of one server."""

    def __init__(self, names: Iterable[str], *, bound: str, machine: str) -> None:
        """Take names from the settings; `machine` is this machine's own.

        A server that is bound to loopback is known as `localhost`; one that is open to the network
        also by the machine's name, alone and below `.local` (RFC 6762).
        """
        known = {"localhost", *(name.casefold() for name in names)}
        if not is_loopback(bound) and machine:
            known |= {machine.casefold(), f"{machine.partition('.')[0]}.local".casefold()}
        self._known = frozenset(known)

    def require_known(self, host: str) -> None:
        """Refuse a `Host` that is no address and none of our names; any port may follow.

        Raises:
            UnknownHost: as said.
        """
        if not self._is_known(host):
            raise UnknownHost(host)

    def require_own_page(self, host: str, method: str, headers: Mapping[str, str]) -> None:
        """Refuse what a page of another origin has sent.

        A link that somebody follows to a page of ours is let through: nobody else reads the answer.

        Raises:
            ForeignOrigin: as said.
        """
        origin = headers.get("origin")
        if origin is not None:
            found = _ORIGIN.fullmatch(origin)
            if found is None or found[1].casefold() != host.casefold():
                raise ForeignOrigin(origin)
        site = headers.get("sec-fetch-site", "none")
        is_link = headers.get("sec-fetch-mode") == "navigate" and method in {"GET", "HEAD"}
        if site not in {"none", "same-origin"} and not is_link:
            raise ForeignOrigin(origin or site)

    def _is_known(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None or int(found[2] or 0) > PORT_MAX:
            return False
        name = found[1].removeprefix("[").removesuffix("]").casefold()
        return name in self._known or is_address(name)
