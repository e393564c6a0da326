"""Start: what is checked before a server runs, and whether it runs under a supervisor.

Imports none of the server's own libraries, which take half a second and most of its memory.
"""

import logging
from collections.abc import Sequence

import msgspec

from appliance import logs
from appliance.core.clock import SystemClock
from appliance.core.errors import InvalidSettings
from appliance.lan import require_deliberate
from appliance.listen_address import resolved
from appliance.listener import listen
from appliance.port import claimed
from appliance.settings import Settings, injected_variables
from appliance.store.datadir import DataDir
from appliance.supervisor import Supervisor, program

log = logging.getLogger("gigarouter.serve")


def supervise(directory: DataDir, settings: Settings, arguments: Sequence[str]) -> int:
    """Keep a server running until told to stop; return the exit code.

    `arguments` are the server's own, of the command line.

    Raises:
        DataDirBusy: another process owns the data directory.
        InvalidSettings: the port is taken, or the data directory is another user's.
    """
    logs.configure(settings.log_format, own_file=directory.log)
    settings = checked(directory, settings)
    with (
        directory.locked() as lock,
        claimed(settings.host, settings.port),
        listen(settings.host, settings.port) as listener,
    ):
        address = ["--host", settings.host, "--port", str(settings.port)]
        return Supervisor(
            [*program(), "serve", *arguments, *address],
            listener,
            lock,
            SystemClock(),
            pause_s=settings.restart_pause_s,
            is_secure=bool(settings.tls.cert),
        ).run()


def checked(directory: DataDir, settings: Settings) -> Settings:
    """Return the settings with a literal address, before anything is opened.

    Raises:
        InvalidSettings: the host cannot be bound, or the data directory is another user's.
    """
    if not __debug__:
        raise InvalidSettings("python", "-O", "removes the checks that native code relies on")
    if ignored := injected_variables():
        log.warning("ignored, as set by Kubernetes or Docker: %s", ", ".join(ignored))
    settings = msgspec.structs.replace(settings, host=resolved(settings.host))
    require_deliberate(settings)
    directory.create()
    exposure = directory.exposure()
    if directory.is_of_another_user():
        raise InvalidSettings("settings", "data_dir", f"{directory.path}: {exposure}")
    if exposure:
        log.warning("%s: %s", directory.path, exposure)
    return settings
