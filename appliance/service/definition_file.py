"""Definition file: what tells a service manager of a server, and whose it is."""

from pathlib import Path

from appliance.core.errors import ServiceRefused


def write_own(path: Path, content: bytes, *, mark: bytes) -> None:
    """Write a definition, unless another hand's is in its place.

    Raises:
        ServiceRefused: it is; or this user may not write there.
    """
    if path.exists():
        require_own(path, mark=mark)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)  # the service manager may be another user's, and nothing secret is in it
    except PermissionError:
        raise ServiceRefused(f"{path} may be written by root alone; use sudo, or --user") from None


def require_own(path: Path, *, mark: bytes) -> None:
    """Refuse to change a definition that somebody else wrote, or one that is not there.

    Raises:
        ServiceRefused: names it and the fix.
    """
    try:
        is_own = mark in path.read_bytes()
    except FileNotFoundError:
        raise ServiceRefused(
            f"there is no {path}; `gigarouter service install` writes it, and what came with a "
            "package goes with the package"
        ) from None
    if not is_own:
        raise ServiceRefused(
            f"{path} was written or changed by somebody else, and is kept; move it away first"
        )
