"""Injected variables: what Kubernetes and Docker set in the environment of every program.

Kubernetes does for each service of a namespace, Docker for each link; one that is named
`gigarouter` has our prefix. Pure: the environment is read by `settings.py`.
"""

import re
from collections.abc import Mapping

_SERVICE = "(?:[A-Z0-9_]+_)?"
"""After the prefix: a service named as it says, or one whose name begins so."""
_SERVICE_PORT = _SERVICE + r"PORT_\d{1,5}_(?:TCP|UDP|SCTP)"
_ADDRESS = r"[0-9A-Fa-f.:]+"
_NUMBER = r"\d{1,5}"
_PROTOCOL = "tcp|udp|sctp"
_URL = rf"(?:{_PROTOCOL})://(?:\[{_ADDRESS}\]|[0-9.]+):{_NUMBER}"
INJECTED = tuple(
    (re.compile(name), re.compile(value))
    for name, value in (
        (_SERVICE + "SERVICE_HOST", _ADDRESS),
        (_SERVICE + "SERVICE_PORT(?:_[A-Z0-9_]+)?", _NUMBER),
        (_SERVICE + "PORT", _URL),
        (_SERVICE_PORT + "(?:_START|_END)?", _URL),
        (_SERVICE_PORT + "_PROTO", _PROTOCOL),
        (_SERVICE_PORT + "_PORT(?:_START|_END)?", _NUMBER),
        (_SERVICE_PORT + "_ADDR", _ADDRESS),
        (_SERVICE + "NAME", r"/[^/]+/[^/]+"),
    )
)
"""Names and values of the variables that Kubernetes sets for each service of a namespace, and
Docker for each link (those of Docker are the same, with ranges of ports and the link's name)."""
_LINK_ENV = re.compile(f"({_SERVICE})ENV_.+")
"""A variable of the linked container, which Docker passes on beside the link's name."""


def injected(environment: Mapping[str, str], prefix: str) -> list[str]:
    """Return the names of such variables with this prefix, sorted."""
    ours = {
        name.removeprefix(prefix): value
        for name, value in environment.items()
        if name.startswith(prefix)
    }
    found = {
        name
        for name, value in ours.items()
        if any(n.fullmatch(name) and v.fullmatch(value) for n, v in INJECTED)
    }
    for name in ours:
        link = _LINK_ENV.fullmatch(name)
        if link is not None and link[1] + "NAME" in found:
            found.add(name)
    return sorted(prefix + name for name in found)
