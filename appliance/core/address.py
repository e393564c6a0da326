"""Address: which hosts are this machine alone."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Say whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
