"""Schema hooks: what Schemathesis loads besides its configuration, in a process of its own."""

import ipaddress
from itertools import count
from typing import Any

import schemathesis

FIRST = int(ipaddress.IPv4Address("10.0.0.0"))
ADDRESSES = 1 << 24

_calls = count()


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Send each call from another address: invalid keys are counted by address, and few are taken."""
    address = ipaddress.IPv4Address(FIRST + next(_calls) % ADDRESSES)
    case.headers["X-Forwarded-For"] = str(address)
