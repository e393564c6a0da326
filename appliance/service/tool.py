"""Tool: one call of a service manager's own command.

Owns how long it may take, and what is said when it fails.
"""

import subprocess

from appliance.core.errors import ServiceRefused
from appliance.core.text import visible
from appliance.service.unit import START_SECONDS

CALL_SECONDS = START_SECONDS + 60
"""How long a service manager may take: it waits until the server listens, or has ended."""
NO_MANAGER = (
    "run `gigarouter serve` under what starts programs here (a container's runtime, for one), or "
    "take the unit with `gigarouter service install --print` to a machine that has systemd"
)


def answer(command: list[str]) -> str:
    """Return what a command prints.

    Raises:
        ServiceRefused: it failed; with the first line of what it said.
    """
    ended = output(command)
    if ended.returncode:
        said = visible((ended.stderr or ended.stdout).strip().partition("\n")[0])
        raise ServiceRefused(f"{' '.join(command[:3])} failed: {said or ended.returncode}")
    return ended.stdout


def output(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Return how a command ended.

    Raises:
        ServiceRefused: it is not there, or does not end.
    """
    try:
        return subprocess.run(  # noqa: S603 - wherever the system keeps its tools
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=CALL_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise ServiceRefused(f"there is no {command[0]} here; {NO_MANAGER}") from None
    except subprocess.TimeoutExpired:
        raise ServiceRefused(f"{' '.join(command[:3])} does not answer") from None
