"""TLS: `gigarouter tls …`: the certificates of this data directory."""

import click

from appliance.cli import printing
from appliance.cli.options import Commands, everywhere
from appliance.core.clock import SystemClock
from appliance.core.errors import InvalidSettings
from appliance.store.audit_log import AuditLog, this_user
from appliance.store.datadir import DataDir


@click.group(cls=Commands)
def tls() -> None:
    """Make and show the certificates that a server on the network uses."""


@tls.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@everywhere
def make(directory: DataDir, *, as_json: bool, names: tuple[str, ...]) -> None:
    """Make a certificate, signed by this data directory's own authority.

    NAMEs are DNS names or addresses by which clients call the server.  [default: this machine's
    name and addresses]
    """
    # Imported late, as below: the library takes a moment that no other command needs.
    from appliance.local_ca import LocalCa, now_utc, own_names  # noqa: PLC0415

    clock, authority = SystemClock(), LocalCa(directory.tls)
    directory.create()
    directory.require_own()
    wanted = list(names) or own_names()
    is_new = authority.make(wanted, now_utc(clock.wall_us()))
    AuditLog(directory.audit_log, clock).note(
        who=this_user("command line"), what="tls_make", outcome="done", target=tuple(wanted)
    )
    _print(directory, as_json=as_json)
    if is_new:
        click.echo(
            "The authority is new: whoever calls this server has to trust it, once. "
            "`gigarouter tls ca` prints it.",
            err=True,
        )
    click.echo(
        f"Use it: gigarouter serve --host 0.0.0.0 --lan --tls-cert {authority.cert} "
        f"--tls-key {authority.key}",
        err=True,
    )


@tls.command()
@everywhere
def show(directory: DataDir, *, as_json: bool) -> None:
    """Show names, fingerprints and ends of authority and certificate."""
    _print(directory, as_json=as_json)


@tls.command()
@everywhere
def ca(directory: DataDir, *, as_json: bool) -> None:
    """Print the authority's certificate, for whoever is to trust this server."""
    del as_json  # it is a document by itself
    from appliance.local_ca import LocalCa, now_utc  # noqa: PLC0415

    authority = LocalCa(directory.tls)
    found = authority.show(authority.ca, now_utc(SystemClock().wall_us()))
    if found is None:
        raise _missing(directory)
    click.echo(authority.ca.read_text("ascii"), nl=False)
    click.echo(f"SHA-256 {found.fingerprint}", err=True)


def _print(directory: DataDir, *, as_json: bool) -> None:
    from appliance.local_ca import LocalCa, now_utc  # noqa: PLC0415

    authority, now = LocalCa(directory.tls), now_utc(SystemClock().wall_us())
    found = {
        "authority": authority.show(authority.ca, now),
        "certificate": authority.show(authority.cert, now),
    }
    if found["certificate"] is None:
        raise _missing(directory)
    if as_json:
        printing.document(found)
        return
    for role, view in found.items():
        if view is not None:
            facts = {
                role: view.path,
                "SHA-256": view.fingerprint,
                "names": ", ".join(view.names) or "-",
                "until": f"{view.expires} ({view.days_left} days)",
            }
            printing.pairs(facts)


def _missing(directory: DataDir) -> InvalidSettings:
    return InvalidSettings(
        "tls", str(directory.tls), "there is no certificate here; gigarouter tls make makes one"
    )
