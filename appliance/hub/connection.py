"""Connection: what in the environment keeps the hub's client from starting, in one line.

Names variables and what to do about them. A proxy's address is never repeated, because it can hold
a password.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from appliance.core.text import words_of

SCHEMES = ("http", "https", "socks5", "socks5h")
CAUSES_MAX = 20
"""Errors behind an error that are looked at."""
_USER = re.compile(r"//[^/@\s]*@")


def fault(error: Exception, variables: Mapping[str, str]) -> str:
    """Return what is wrong; `error` is what the client said when it was to start."""
    proxies = {name: value for name, value in variables.items() if name.upper().endswith("PROXY")}
    if isinstance(error, ImportError):
        for name, value in proxies.items():
            if value.startswith("socks"):
                return (
                    f"{name} names a SOCKS proxy, which needs the Python package socksio: install "
                    "it into gigarouter's environment, or name an HTTP proxy, or unset the variable"
                )
    if isinstance(error, OSError):
        for name in set(variables) - set(proxies):
            what = "no file of certificates" if Path(variables[name]).is_file() else "no file"
            return f"{name} names {variables[name]}, which is {what}; correct or unset it"
    for name, value in proxies.items():
        if not _is_address(value):
            return f"{name} is no address of a proxy, like http://host:3128; correct or unset it"
    return f"the hub's client does not start: {without_secrets(str(error))}"


def passes(error: BaseException) -> bool:
    """Return whether another attempt can succeed after a failure of the client.

    What this machine's settings, disk or certificates cause stays until somebody acts.
    """
    import httpx2  # noqa: PLC0415 - late: a quarter of a second with the hub's client

    if isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.ProxyError)):
        return False
    causes, cause = [error], error.__cause__ or error.__context__
    while cause is not None and len(causes) < CAUSES_MAX:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
        return False
    if isinstance(error, OSError):
        return isinstance(error, (ConnectionError, TimeoutError, socket.gaierror))
    return True


def unreached(error: Exception, endpoint: str) -> str:
    """Return where a request went that failed, why it did, and what to do.

    A redirect may lead elsewhere than to the hub, so the host of the failed request is named.
    """
    try:
        url = error.request.url  # type: ignore[attr-defined]  # errors of HTTP have it
        where = f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}"
    except (AttributeError, RuntimeError):
        where = endpoint
    said = without_secrets(words_of(error)).rstrip(".")
    return (
        f"{without_secrets(where)} cannot be reached: {said}. Check this machine's network, and "
        "HTTPS_PROXY where it needs a proxy; hub.endpoint names a mirror"
    )


def without_secrets(text: str) -> str:
    """Return a text without the users and passwords of addresses in it."""
    return _USER.sub("//", text)


def _is_address(value: str) -> bool:
    # As clients do, an address without a scheme counts as one of an HTTP proxy.
    try:
        found = urlsplit(value if "://" in value else f"http://{value}")
        _ = found.port
    except ValueError:
        return False
    return found.scheme in SCHEMES and bool(found.hostname)
