"""Systemd: a server as a service of systemd.

Owns the calls of `systemctl` and `journalctl`.
"""

import shutil
from pathlib import Path

import platformdirs

from appliance.core.errors import ServiceRefused
from appliance.core.text import visible
from appliance.service.definition import Definition, Scope
from appliance.service.definition_file import require_own, write_own
from appliance.service.state import ServiceState
from appliance.service.tool import NO_MANAGER, answer, output
from appliance.service.unit import MARK, UNIT, data_dir_in, environment_file, systemd_unit

LOG_LINES = 10
ASKED = (
    "LoadState,FragmentPath,UnitFileState,ActiveState,SubState,Result,MainPID,ActiveEnterTimestamp,"
    "NRestarts,InvocationID"
)


class Systemd:
    """systemd, of the machine or of one user."""

    def __init__(self, scope: Scope, folder: Path | None = None) -> None:
        is_system = scope == "system"
        own = platformdirs.user_config_path() / "systemd" / "user"
        self._scope = scope
        self._systemctl = ["systemctl"] if is_system else ["systemctl", "--user"]
        self.file = (folder or (Path("/etc/systemd/system") if is_system else own)) / UNIT
        self.settings_file = environment_file(scope).replace(
            "%E", str(platformdirs.user_config_path())
        )

    def text(self, definition: Definition) -> bytes:
        """Return the unit."""
        return systemd_unit(definition).encode()

    def install(self, definition: Definition) -> None:
        """Write, enable and start the unit, or start it again."""
        self._require_systemd()
        write_own(self.file, self.text(definition), mark=MARK.encode())
        self._call("daemon-reload")
        self._call("enable", UNIT)
        try:
            self._call("restart", UNIT)
        except ServiceRefused as error:
            last = "".join(f" Its last line: {line}" for line in self.state().log[-1:])
            raise ServiceRefused(error.message + last) from None

    def state(self) -> ServiceState:
        """Return what `systemctl show` and the journal say."""
        self._require_systemd()
        lines = self._call("show", UNIT, f"--property={ASKED}").splitlines()
        found = dict(line.partition("=")[::2] for line in lines)
        result = found.get("Result", "success")
        active = f"{found.get('ActiveState', '')} ({found.get('SubState', '')})"
        file = found.get("FragmentPath", "") if found.get("LoadState") != "not-found" else ""
        return ServiceState(
            file=file,
            data_dir=data_dir_in(Path(file).read_text("utf-8")) if file else "",
            enabled=found.get("UnitFileState", ""),
            active=active if result == "success" else f"{active}, {result}",
            pid=int(found.get("MainPID") or 0),
            since=found.get("ActiveEnterTimestamp", ""),
            restarts=int(found.get("NRestarts") or 0),
            log=self._log(found.get("InvocationID", "")),
        )

    def remove(self) -> None:
        """Stop, disable and remove the unit."""
        self._require_systemd()
        require_own(self.file, mark=MARK.encode())
        self._call("disable", "--now", UNIT)
        self.file.unlink()
        self._call("daemon-reload")

    def _require_systemd(self) -> None:
        """Refuse where systemd is installed and does not run, as in a container."""
        if shutil.which("systemctl") is None:
            raise ServiceRefused(f"this machine has neither systemd nor launchd; {NO_MANAGER}")
        said = output([*self._systemctl, "is-system-running"])
        if said.stdout.strip() in ("", "offline", "unknown"):
            reason = visible(said.stderr.strip().partition("\n")[0]) or "it is offline"
            whose = "systemd" if self._scope == "system" else "your own systemd (systemctl --user)"
            raise ServiceRefused(f"{whose} does not run here ({reason}); {NO_MANAGER}")

    def _call(self, *words: str) -> str:
        return answer([*self._systemctl, *words])

    def _log(self, run: str) -> list[str]:
        """Return the last lines of one run."""
        if not run or shutil.which("journalctl") is None:
            return []
        which = ["journalctl", *([] if self._scope == "system" else ["--user"])]
        told = [*which, f"_SYSTEMD_INVOCATION_ID={run}", f"--lines={LOG_LINES}", "--output=cat"]
        lines = output([*told, "--quiet", "--no-pager"]).stdout.splitlines()
        return [visible(line) for line in lines]
