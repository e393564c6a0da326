"""Service: `gigarouter service …`: a server that the machine starts.

Owns which data directory and settings a service has when it is installed.
"""

import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from appliance import settings
from appliance.cli import printing
from appliance.cli.options import DATA_DIR_HELP, Commands, DirectoryPath, as_document
from appliance.core.errors import ServiceRefused
from appliance.lan import require_deliberate
from appliance.service.definition import (
    CREDENTIALS,
    FLAGS,
    SYSTEM_DATA_DIR,
    Definition,
    Scope,
    require_open,
    require_plain,
)
from appliance.service.launchd import Launchd
from appliance.service.state import ServiceManager
from appliance.service.systemd import Systemd
from appliance.settings import Settings
from appliance.store.datadir import DataDir
from appliance.supervisor import program

CARRIED = {
    settings.DATA_DIR,
    *(f"{settings.PREFIX}{name.upper().replace('.', '_')}" for name in FLAGS),
}
"""Variables that become part of the service's command line."""
which = click.option(
    "--system/--user",
    "is_system",
    default=None,
    help="Of the machine, or of this user alone.  [default: --system for root]",
)


@click.group(cls=Commands)
def service() -> None:
    """Let this machine start the server: systemd, or launchd on macOS."""


@service.command()
@which
@click.option("--data-dir", type=DirectoryPath(), help=DATA_DIR_HELP)
@click.option("--host", help="Address to bind.")
@click.option("--port", type=int, help="Port to bind.")
@click.option("--tls-cert", help="PEM certificate chain.")
@click.option("--tls-key", help="Its PKCS#8 private key.")
@click.option("--lan", is_flag=True, default=None, help="Let other machines reach it.")
@click.option("--insecure-http", is_flag=True, default=None, help="Let them do so without TLS.")
@click.option("--gpu", is_flag=True, help="Let it use an NVIDIA card's devices.")
@click.option("--print", "is_printed", is_flag=True, help="Print the file; change nothing.")
def install(
    *, is_system: bool | None, data_dir: Path | None, is_printed: bool, gpu: bool, **flags: Any
) -> None:
    """Write the service's file, enable and start it; again: with what is chosen now.

    What is set now in flags, variables and the data directory's config.toml is kept.
    """
    scope = _scope(is_system)
    if scope == "system" and os.geteuid() != 0 and not is_printed:
        raise ServiceRefused("a service of the machine is installed by root; use sudo, or --user")
    manager = manager_of(scope)
    if is_printed and sys.platform == "darwin":
        manager = Launchd(scope)
    definition = _definition(scope, manager, data_dir, gpu=gpu, flags=flags)
    if is_printed:
        click.echo(manager.text(definition), nl=False)
        return
    require_open(definition)
    state = manager.state()
    directory = DataDir(definition.data_dir)
    if not state.pid and directory.is_locked():
        raise directory.busy()
    manager.install(definition)
    click.echo(f"{manager.file} is written, and the server runs (data in {definition.data_dir}).")
    _hint(scope, manager)


def _hint(scope: Scope, manager: ServiceManager) -> None:
    """Say what the service does not have of what is set here."""
    if manager.settings_file:
        click.echo(f"More settings go into {manager.settings_file}, like GIGAROUTER_THREADS=4.")
    known = (settings.PREFIX, "HF_")
    here = [name for name in settings.environment() if name.startswith(known)]
    if left := sorted(set(here) - CARRIED):
        click.echo(f"Set here and not for the service: {', '.join(left)}.", err=True)
    if scope == "user" and isinstance(manager, Systemd):
        click.echo("It ends with your last session unless: loginctl enable-linger", err=True)


@service.command()
@which
@as_document
def status(*, is_system: bool | None, as_json: bool) -> None:
    """Say whether the service is installed, enabled and running, and its last log lines."""
    scope = _scope(is_system)
    found = manager_of(scope).state()
    if as_json:
        printing.document(found)
    elif found.file:
        since = f" since {found.since}" if found.since else ""
        printing.pairs(
            {
                "file": found.file,
                "enabled": found.enabled,
                "active": f"{found.active}{since}",
                "pid": found.pid or "-",
                "data": found.data_dir or "-",
                "restarts": found.restarts,
            }
        )
        for line in found.log:
            click.echo(f"  {line}")
    if not found.file:
        raise ServiceRefused(
            f"there is no such service; `gigarouter service install --{scope}` makes it"
        )


@service.command()
@which
def remove(*, is_system: bool | None) -> None:
    """Stop the service and remove its file; data stay where they are."""
    scope = _scope(is_system)
    manager = manager_of(scope)
    kept = manager.state().data_dir
    manager.remove()
    click.echo(f"{manager.file} is removed. Data stay in {kept}.")


def manager_of(scope: Scope) -> ServiceManager:
    """Return this machine's; one without any gets systemd's, which then refuses."""
    is_mac = shutil.which("systemctl") is None and shutil.which("launchctl") is not None
    return Launchd(scope) if is_mac else Systemd(scope)


def _scope(is_system: bool | None) -> Scope:  # noqa: FBT001 - of the command line
    return "system" if (os.geteuid() == 0 if is_system is None else is_system) else "user"


def _definition(
    scope: Scope,
    manager: ServiceManager,
    data_dir: Path | None,
    *,
    gpu: bool,
    flags: dict[str, Any],
) -> Definition:
    """Return the service as it is chosen now."""
    is_chosen = data_dir is not None or settings.DATA_DIR in settings.environment()
    path = settings.data_dir(data_dir)
    if scope == "system" and (not is_chosen or path == SYSTEM_DATA_DIR):
        if isinstance(manager, Launchd):
            raise ServiceRefused("launchd makes no user: name a folder of the user's, --data-dir")
        path, user = SYSTEM_DATA_DIR, ""
    else:
        user = _owner(path) if scope == "system" else ""
    given = {name: flags[name.replace(".", "_")] for name in FLAGS}
    chosen = settings.load(path, given)
    require_deliberate(chosen)
    definition = Definition(
        scope=scope,
        program=tuple(program()),
        code=_code(),
        data_dir=path,
        listening=_listening(chosen),
        port=chosen.port,
        user=user,
        has_gpu=gpu,
    )
    require_plain(definition)
    return definition


def _owner(path: Path) -> str:
    """Return who owns the data directory of a system service.

    Raises:
        ServiceRefused: it is root, or there is no such directory.
    """
    if not path.is_dir():
        raise ServiceRefused(
            f"there is no folder {path}; make it and give it to the user whom the server shall run "
            f"as, or leave --data-dir out for {SYSTEM_DATA_DIR} and a user of its own"
        )
    found = path.stat().st_uid
    if found == 0:
        raise ServiceRefused(
            f"{path} is root's, whom no server needs; chown it to another user, or leave "
            f"--data-dir out for {SYSTEM_DATA_DIR} and a user of its own"
        )
    try:
        return pwd.getpwuid(found).pw_name
    except KeyError:
        return str(found)


def _code() -> tuple[Path, ...]:
    interpreter = Path(sys.executable)
    return (interpreter, interpreter.resolve(), Path(sys.base_prefix, "lib"), Path(__file__))


def _listening(chosen: Settings) -> tuple[tuple[str, str], ...]:
    """Return the settings of `FLAGS` that are not the default's."""
    found = []
    default = Settings()
    for name in FLAGS:
        value, usual = (_leaf(each, name) for each in (chosen, default))
        if name in CREDENTIALS and value:
            value = str(Path(value).absolute())
        if value != usual:
            found.append((name, "" if value is True else str(value)))
    return tuple(found)


def _leaf(chosen: Settings, dotted: str) -> Any:
    value: Any = chosen
    for part in dotted.split("."):
        value = getattr(value, part)
    return value
