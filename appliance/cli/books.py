"""Books: `gigarouter backup` and `gigarouter restore`."""

from pathlib import Path

import click

from appliance.cli import printing
from appliance.cli.operator import reach
from appliance.cli.options import everywhere
from appliance.client import verbs
from appliance.core.clock import SystemClock, iso
from appliance.store.datadir import DataDir
from appliance.wire.books import BackupView, RestoredView


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--overwrite", is_flag=True, help="Replace a file of this name.")
@everywhere
def backup(directory: DataDir, *, as_json: bool, file: Path | None, overwrite: bool) -> None:
    """Write a checked copy of keys and credits to FILE; without FILE, list the server's own."""
    if file is None:
        with reach(directory) as operator:
            found = operator.do(verbs.LIST_BACKUPS)
        printing.document(found) if as_json else printing.backups(found)
        return
    from appliance.ledger import backup as books  # noqa: PLC0415 - SQLite, only here

    if not directory.is_locked():
        with reach(directory):  # makes what is not there yet, and brings it up to date
            pass
    # A snapshot, beside a running server or not, with this user's rights: a server, which others
    # may order about, writes into its own folder alone.
    target = file.absolute()
    size = books.back_up(directory, target, overwrite=overwrite)
    created = iso(SystemClock().wall_us()) or ""
    view = BackupView(path=str(target), bytes=size, created=created)
    if as_json:
        printing.document(view)
    else:
        click.echo(f"{view.path}: {view.bytes} bytes, whole, and its books add up")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@everywhere
def restore(directory: DataDir, *, as_json: bool, file: Path) -> None:
    """Put a backup in the place of this data directory's keys and credits; no server may run."""
    from appliance.ledger import backup as books  # noqa: PLC0415 - SQLite, only here

    source = file.absolute()
    with directory.locked():
        replaced = books.restore(directory, source, SystemClock().wall_us())
    if as_json:
        printing.document(RestoredView(str(source), str(replaced) if replaced else None))
        return
    click.echo(f"restored {source}")
    if replaced:
        click.echo(f"what was there before is kept in {replaced}")
    click.echo("Keys that were revoked after this backup was made work again: revoke them anew.")
