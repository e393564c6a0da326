"""Connections: closes those that say nothing while there are so many that others find no place.

The HTTP server accepts so many connections and no more, whoever opened them, and gives each a
minute for its first request. Owns who has to leave before that when places become rare. A
connection whose request is being answered never has to.
"""

import asyncio
import logging
import os
import socket
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.accounts.failed_auth import network_of
from appliance.core.clock import Clock

log = logging.getLogger("gigarouter.api")

LOOK_S = 1.0
CROWDED = 0.75
"""The share of all places above which connections have to leave."""
SHARE = 0.5
"""The share of all places that one address may have then."""
SILENT_NS = 5_000_000_000
"""Who said nothing for so long has to leave."""
SILENT_OF_MANY_NS = 1_000_000_000
"""The same, of an address with more than its share."""
DESCRIPTORS = Path("/dev/fd")

Peer = tuple[str, int]
"""The address and port of a client."""


class Connections:
    """The connections of one server."""

    def __init__(self, clock: Clock, *, port: int, places: int) -> None:
        """Watch the connections to this port, of which there may be so many."""
        self._clock = clock
        self._port = port
        self._places = places
        self._asking: set[Peer] = set()
        """Whose request is being answered."""
        self._silent_since_ns: OrderedDict[Peer, int] = OrderedDict()

    def __repr__(self) -> str:
        """Say how many requests are being answered."""
        return f"<Connections [{len(self._asking)} asking, {self._places} places]>"

    @contextmanager
    def asking(self, peer: Peer | None) -> Iterator[None]:
        """Keep a connection while its request is being answered."""
        if peer is None:  # a transport without addresses
            yield
            return
        self._asking.add(peer)
        try:
            yield
        finally:
            self._asking.discard(peer)
            self._note(peer, self._clock.monotonic_ns())

    def are_open(self) -> bool:
        """Say whether any client is connected, idle or not."""
        found = _open(self._port)
        is_one = next(found, None) is not None
        found.close()
        return is_one

    async def run(self) -> None:
        """Look each second until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            # Counting is quick; only a crowd is looked at one by one, and not on the loop's thread.
            if self._is_crowded(_descriptors()):
                closed = await asyncio.to_thread(self.close_silent)
                if closed:
                    log.warning(
                        "closed %d connections that said nothing: %d of %d places were taken",
                        closed,
                        len(self._silent_since_ns),
                        self._places,
                    )

    def close_silent(self) -> int:
        """Close the connections that have to leave; return how many."""
        now_ns = self._clock.monotonic_ns()
        peers = {peer for _, peer in _open(self._port)}
        leaving = set(self.leaving(peers, now_ns))
        closed = 0
        for connection, peer in _open(self._port):
            # The duplicate is of the connection that was looked at, whatever its number is now.
            if peer in leaving and peer not in self._asking:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                    closed += 1
        return closed

    def leaving(self, peers: set[Peer], now_ns: int) -> list[Peer]:
        """Return who of all open connections has to leave; nobody while there is room."""
        for peer in peers - self._silent_since_ns.keys():
            self._note(peer, now_ns)
        if not self._is_crowded(len(peers)):
            return []
        counts = Counter(network_of(address) for address, _ in peers)
        many = {network for network, count in counts.items() if count > self._places * SHARE}
        return [
            peer
            for peer in peers - self._asking
            if now_ns - self._silent_since_ns.get(peer, now_ns)
            >= (SILENT_OF_MANY_NS if network_of(peer[0]) in many else SILENT_NS)
        ]

    def _is_crowded(self, count: int) -> bool:
        return count > self._places * CROWDED

    def _note(self, peer: Peer, now_ns: int) -> None:
        self._silent_since_ns[peer] = now_ns
        self._silent_since_ns.move_to_end(peer)
        if len(self._silent_since_ns) > 2 * self._places:
            self._silent_since_ns.popitem(last=False)


def _descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in DESCRIPTORS.iterdir())


def _open(port: int) -> Generator[tuple[socket.socket, Peer]]:
    """Yield each connection of this process to a port of its own; closes its handle after that."""
    for each in DESCRIPTORS.iterdir():
        connection = _socket(int(each.name))
        if connection is None:
            continue
        with connection:
            try:
                own, peer = connection.getsockname(), connection.getpeername()
            except OSError:  # it listens, or has ended
                continue
            if isinstance(own, tuple) and own[1] == port:
                yield connection, (str(peer[0]), int(peer[1]))


def _socket(number: int) -> socket.socket | None:
    """Return another handle of a socket of this process; None: it is none, or was closed."""
    try:
        handle = os.dup(number)
    except OSError:
        return None
    try:
        return socket.socket(fileno=handle)
    except OSError:
        os.close(handle)
        return None
