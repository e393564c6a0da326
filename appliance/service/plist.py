"""Plist: a server as a job of launchd.

Owns the content of `gigarouter.plist` (launchd.plist(5)).
"""

import plistlib
from typing import Any
from xml.parsers.expat import ExpatError

from appliance.service.definition import NAME, STOP_SECONDS, Definition

LABEL = NAME
MARK = "GigarouterServiceInstall"
"""A key that launchd does not know, which says whose file this is."""


def launchd_plist(definition: Definition) -> bytes:
    """Return the property list as XML; a system job has a user."""
    log = str(definition.data_dir / "logs" / "server.log")
    found: dict[str, Any] = {
        "Label": LABEL,
        MARK: True,
        "ProgramArguments": definition.command(),
        "RunAtLoad": True,
        # A server that refuses to start has said why: only one that died is started again.
        "KeepAlive": {"Crashed": True},
        "ThrottleInterval": 10,
        "ExitTimeOut": STOP_SECONDS,
        # Any other kind is slowed down for the sake of what is on the screen.
        "ProcessType": "Interactive",
        "WorkingDirectory": str(definition.data_dir),
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "Umask": 0o077,
    }
    if definition.user:
        found["UserName"] = definition.user
    return plistlib.dumps(found, sort_keys=False)


def data_dir_of(plist: bytes) -> str:
    """Return the data directory that a property list of ours names; empty: it is not of ours."""
    try:
        return str(plistlib.loads(plist)["WorkingDirectory"])
    except (KeyError, TypeError, ValueError, plistlib.InvalidFileException, ExpatError):
        return ""
