"""Books: `gigarouter backup`, `gigarouter restore` and `gigarouter prove`."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import click
import msgspec

from appliance.cli import printing
from appliance.cli.operator import Operator, reach
from appliance.cli.options import everywhere
from appliance.client import verbs
from appliance.core.clock import SystemClock
from appliance.store.audit_log import AuditLog, this_user
from appliance.store.datadir import HANDED_OVER, DataDir
from appliance.store.placement import place, require_place
from appliance.wire.books import BackupOrder, BackupView, ProofView, RestoredView

PROBLEMS_MAX = 10
"""Named in one report."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--overwrite", is_flag=True, help="Replace a file of this name.")
@everywhere
def backup(directory: DataDir, *, as_json: bool, file: Path | None, overwrite: bool) -> None:
    """Write a checked copy of keys and credits to FILE; without FILE, list the server's own."""
    with reach(directory) as operator:
        if file is None:
            found = operator.do(verbs.LIST_BACKUPS)
            printing.document(found) if as_json else printing.backups(found)
            return
        target = file.absolute()
        require_place(target, directory.path, overwrite=overwrite)
        with copied(directory, operator) as (made, view):
            place(made, target, overwrite=overwrite)
        view = msgspec.structs.replace(view, path=str(target))
    if as_json:
        printing.document(view)
    else:
        click.echo(f"{view.path}: {view.bytes} bytes, whole, and its books add up")


@contextmanager
def copied(directory: DataDir, operator: Operator) -> Iterator[tuple[Path, BackupView]]:
    """Yield a checked copy of the books, which goes at the end of the block if it is there still.

    A server writes into its own folder alone. What is put elsewhere is put there by this process,
    with the rights of whoever runs it.
    """
    order = BackupOrder(name=f"{HANDED_OVER}{secrets.token_hex(8)}.db")
    view = operator.do(verbs.BACK_UP, order=order)
    made = directory.backups / order.name
    try:
        yield made, view
    finally:
        made.unlink(missing_ok=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@everywhere
def restore(directory: DataDir, *, as_json: bool, file: Path) -> None:
    """Put a backup in the place of this data directory's keys and credits; no server may run."""
    from appliance.ledger import backup as books  # noqa: PLC0415 - SQLite, only here

    source = file.absolute()
    with directory.locked():
        clock = SystemClock()
        replaced = books.restore(directory, source, clock.wall_us())
        AuditLog(directory.audit_log, clock).note(
            who=this_user("command line"), what="restore", outcome="done", target=(str(source),)
        )
    if as_json:
        printing.document(RestoredView(str(source), str(replaced) if replaced else None))
        return
    click.echo(f"restored {source}")
    if replaced:
        click.echo(f"what was there before is kept in {replaced}")
    click.echo("Keys that were revoked after this backup was made work again: revoke them anew.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@everywhere
def prove(directory: DataDir, *, as_json: bool, file: Path) -> None:
    """Hold what was removed of old calls (`books.keep_days`) against a backup that has it still."""
    from appliance.ledger import retention, transfer  # noqa: PLC0415 - SQLite, only here
    from appliance.store.reader import reading  # noqa: PLC0415

    with reading(directory.database) as books, reading(file) as backup:
        removed = transfer.checkpoint(books).seq
        found = list(islice(retention.disagreements(books, backup), PROBLEMS_MAX))
    if as_json:
        printing.document(ProofView(removed, found))
    else:
        for problem in found:
            click.echo(problem, err=True)
        if not removed:
            click.echo("nothing was removed")
        elif not found:
            click.echo(f"what was removed up to transfer {removed} is what {file} has")
    if found:
        raise SystemExit(1)
