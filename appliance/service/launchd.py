"""Launchd: a server as a job of launchd, on macOS.

Owns the calls of `launchctl`.
"""

import os
import re
import subprocess
import time
from pathlib import Path

from appliance.service.definition import STOP_SECONDS, Definition, Scope
from appliance.service.definition_file import require_own, write_own
from appliance.service.plist import LABEL, MARK, data_dir_of, launchd_plist
from appliance.service.state import ServiceState
from appliance.service.tool import answer, output

LOOK_AGAIN_S = 0.2


class Launchd:
    """launchd of macOS, of the machine or of one user."""

    def __init__(self, scope: Scope, folder: Path | None = None) -> None:
        is_system = scope == "system"
        own = Path.home() / "Library" / "LaunchAgents"
        self._domain = "system" if is_system else f"gui/{os.getuid()}"
        self.file = (folder or (Path("/Library/LaunchDaemons") if is_system else own)) / (
            f"{LABEL}.plist"
        )
        self.settings_file = ""

    def text(self, definition: Definition) -> bytes:
        """Return the property list."""
        return launchd_plist(definition)

    def install(self, definition: Definition) -> None:
        """Write the property list and load it, in the place of one that was loaded."""
        (definition.data_dir / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        write_own(self.file, self.text(definition), mark=MARK.encode())
        self._unload()
        answer(["launchctl", "bootstrap", self._domain, str(self.file)])

    def state(self) -> ServiceState:
        """Return what `launchctl print` says; launchd keeps no log."""
        said = self._print()
        is_loaded = said.returncode == 0
        found = dict(re.findall(r"^\t(state|pid|runs|path) = (.+)$", said.stdout, re.MULTILINE))
        return ServiceState(
            file=str(self.file) if self.file.exists() else "",
            data_dir=data_dir_of(self.file.read_bytes()) if self.file.exists() else "",
            enabled="enabled" if is_loaded else "disabled",
            active=found.get("state", "not loaded"),
            pid=int(found.get("pid", 0)),
            since="",
            restarts=max(0, int(found.get("runs", 0)) - 1),
            log=[],
        )

    def remove(self) -> None:
        """Unload and remove the property list."""
        require_own(self.file, mark=MARK.encode())
        self._unload()
        self.file.unlink()

    def _unload(self) -> None:
        """Take the job away, and wait for its server: launchd loads none in its place before."""
        output(["launchctl", "bootout", f"{self._domain}/{LABEL}"])
        for _ in range(round(STOP_SECONDS / LOOK_AGAIN_S)):
            if self._print().returncode:
                return
            time.sleep(LOOK_AGAIN_S)

    def _print(self) -> "subprocess.CompletedProcess[str]":
        return output(["launchctl", "print", f"{self._domain}/{LABEL}"])
