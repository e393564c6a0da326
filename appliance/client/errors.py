"""Errors: what can go wrong between a client and a server.

One family below `ServerUnreachable`, so that a caller who treats all of it alike names one type.
"""

from appliance.core.errors import ServerUnreachable


class ServerLost(ServerUnreachable):
    """The server does not answer; it may come back."""


class ServerHangs(ServerLost):
    """The server accepts connections and gives no answer in time."""


class ServerRefused(ServerUnreachable):
    """The server answered no; the message is its own."""


class StrangeAnswer(ServerUnreachable):
    """The answer is not what this version of gigarouter expects."""


class DidNotStart(ServerUnreachable):
    """The server ended before it listened, or did not listen in time."""


class DidNotStop(ServerUnreachable):
    """The server was told to stop and still runs, or may not be told."""
