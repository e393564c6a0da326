"""Audit: a line of the audit log: who did what, when, from where, and how it ended."""

from typing import Any

import msgspec


class AuditLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One action of an operator, or a minute of refused attempts from one address."""

    at: str
    who: str
    """`admin token`, `key ID`, `command line (user UID)`, `console (user UID)`; `nobody`: refused
    attempts without a good credential."""
    what: str
    """Name of the verb, as in `top_up`."""
    outcome: str
    """`done`, or `refused` with the status or the reason."""
    origin: str = ""
    """Address that it came from; empty: this machine, without a server."""
    target: tuple[str, ...] = ()
    """Ids that it is about."""
    order: dict[str, Any] = {}
    """What was asked for, without secrets and without names of persons."""
    request_id: str = ""
