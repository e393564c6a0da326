"""Descriptors: how many files and connections this process may have open, and how they are shared.

Owns the soft limit of open descriptors (RLIMIT_NOFILE) and the number of connections below it. A
server that accepts up to the limit itself cannot open a model or its database any more, and an
accept loop that fails for want of a descriptor takes a core without serving anybody.
"""

import resource
from dataclasses import dataclass

from appliance.core.errors import InvalidSettings

SOFT_MAX = 65_536
"""What the soft limit is raised to at most: more would only make closing all of them slow."""
CONNECTIONS_MAX = 4096
"""Connections that are accepted at most, idle ones too; calls are bounded by the queue instead."""
CONNECTIONS_FEW = 512
"""A server that accepts fewer logs a warning."""
CONNECTIONS_MIN = 8
RESERVE_MIN = 48
"""Descriptors that are kept for other than connections: an idle server has about 30 open (measured
with one model), and loading a model, a backup and a download take a few each."""
RESERVE_MAX = 512
RESERVE_SHARE = 8
"""One descriptor in so many is kept, between the two bounds."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The limit of a process, and what it is used for."""

    soft: int
    """Descriptors that may be open."""
    hard: int
    """What the soft limit may be raised to without privileges."""

    @property
    def reserve(self) -> int:
        """Descriptors that are kept for files."""
        return min(RESERVE_MAX, max(RESERVE_MIN, self.soft // RESERVE_SHARE))

    @property
    def connections(self) -> int:
        """Connections that may be accepted; 0 or less when there is no room for any."""
        return min(CONNECTIONS_MAX, self.soft - self.reserve)

    @property
    def are_few(self) -> bool:
        """Say whether the limit keeps the server from what it is made for."""
        return self.connections < CONNECTIONS_FEW

    def __str__(self) -> str:
        """Return both numbers in words."""
        return (
            f"{self.soft} descriptors may be open, {max(0, self.connections)} of them connections"
        )


def current() -> Descriptors:
    """Return this process's limit as a server would have it: the soft one raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Descriptors(*_raised(soft, hard))


def raise_limit() -> Descriptors:
    """Raise the soft limit as far as it may be raised, and return what is so.

    Raises:
        InvalidSettings: there is no room for connections beside the files that a server needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted, bound = _raised(soft, hard)
    if wanted != soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # some systems bound it below the hard limit that they name
            wanted = soft
    found = Descriptors(wanted, bound)
    if found.connections < CONNECTIONS_MIN:
        raise InvalidSettings(
            "system", "ulimit -n", f"is {wanted}; a server needs {RESERVE_MIN + CONNECTIONS_MIN}"
        )
    return found


def _raised(soft: int, hard: int) -> tuple[int, int]:
    """Return the soft limit to have, and the hard one; no limit counts as `SOFT_MAX`."""
    bound = SOFT_MAX if hard == resource.RLIM_INFINITY else hard
    now = SOFT_MAX if soft == resource.RLIM_INFINITY else soft
    return max(now, min(bound, SOFT_MAX)), bound
