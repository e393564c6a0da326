"""Version: which version of this program runs here, and what to say of another one."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def program_version() -> str:
    """Return this program's version, `"0"` when it runs uninstalled."""
    try:
        return version("gigarouter")
    except PackageNotFoundError:
        return "0"


def skew(server: str, own: str) -> str:
    """Return what to say where a server is of another version; empty: it is of the same.

    `server` is empty for one that is too old to say which it is.
    """
    if server == own:
        return ""
    theirs = server or "older"
    return (
        f"the server that runs is {theirs}, and this is {own}: restart it with this version, "
        "or use that one; until then some of what is asked may be unknown to it"
    )
