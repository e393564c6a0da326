"""Archive: `gigarouter export` and `gigarouter import`: keys and credits to another machine."""

import secrets
import tempfile
import tomllib
from pathlib import Path

import click

from appliance import settings
from appliance.cli import printing
from appliance.cli.books import copied
from appliance.cli.operator import reach
from appliance.cli.options import everywhere
from appliance.core.clock import SystemClock, iso
from appliance.core.errors import StoreFailed
from appliance.core.version import program_version
from appliance.store import archive
from appliance.store.archive import BOOKS, CATALOGUE, FORMAT, SETTINGS, Manifest, Model
from appliance.store.audit_log import AuditLog, this_user
from appliance.store.datadir import HANDED_OVER, DataDir, write_private
from appliance.store.placement import place, require_place

OF_THE_MACHINE = (
    *("host", "port", "threads", "tls.cert", "tls.key"),
    *("engine.memory_mb", "engine.workers"),
)
"""Settings that may say something of the machine that was left."""
BEFORE = ".before-import"


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace a file of this name.")
@everywhere
def export(directory: DataDir, *, as_json: bool, file: Path, overwrite: bool) -> None:
    """Write keys, balances, usage, settings and the catalogue's own part into FILE, to move them.

    A server may run. Keys are in it as their digests, and work on the new machine as they are.
    Left here: models' files, files of batches, certificates, the admin token, logs.
    """
    target = file.absolute()
    require_place(target, directory.path, overwrite=overwrite)
    about = Manifest(
        format=FORMAT,
        version=program_version(),
        created=iso(SystemClock().wall_us()) or "",
        members={},
        models=_models_here(directory),
    )
    part = directory.backups / f"{HANDED_OVER}{secrets.token_hex(8)}.zip"
    with reach(directory) as operator, copied(directory, operator) as (books, _):
        files = {BOOKS: books, SETTINGS: directory.path / SETTINGS, CATALOGUE: directory.catalog}
        try:
            there = {name: path for name, path in files.items() if path.exists()}
            archive.write(part, there, about)
            place(part, target, overwrite=overwrite)
        finally:
            part.unlink(missing_ok=True)
    with archive.opened(target) as (written, _):
        pass
    if as_json:
        printing.document(written)
        return
    click.echo(f"{target}: {', '.join(written.members)}; {target.stat().st_size} bytes")
    click.echo("On the other machine: gigarouter import FILE. Then do not serve here any more.")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Even over books; what was there is kept beside it.")
@everywhere
def import_(directory: DataDir, *, as_json: bool, file: Path, replace: bool) -> None:
    """Put what `gigarouter export` wrote into this data directory; no server may run."""
    from appliance.catalog.catalog import load, shipped_path  # noqa: PLC0415 - numpy, only here
    from appliance.ledger import backup  # noqa: PLC0415 - SQLite, only here

    source, clock = file.absolute(), SystemClock()
    with directory.locked(), tempfile.TemporaryDirectory(dir=directory.incoming) as temporary:
        folder = Path(temporary)
        _require_empty(directory, replace=replace)
        manifest = archive.unpack(source, folder)
        # All is read before anything is put in place: what is wrong with it changes nothing.
        settings.load(folder, {})
        load(shipped_path(), folder / CATALOGUE, directory.models)
        replaced = backup.restore(directory, folder / BOOKS, clock.wall_us())
        for path in (directory.catalog, directory.path / SETTINGS):
            if path.exists():
                path.replace(path.with_name(path.name + BEFORE))
            if path.name in manifest.members:
                write_private(path, (folder / path.name).read_bytes())
        AuditLog(directory.audit_log, clock).note(
            who=this_user("command line"), what="import", outcome="done", target=(str(source),)
        )
    if as_json:
        printing.document(manifest)
        return
    click.echo(f"imported what gigarouter {manifest.version} wrote on {manifest.created}")
    if replaced:
        click.echo(f"the books that were here are kept in {replaced}")
    for line in [*_missing(directory, manifest), *_to_look_at(directory)]:
        click.echo(line)


def _models_here(directory: DataDir) -> list[Model]:
    """Return the models whose files lie in the data directory."""
    from appliance.catalog.catalog import load, shipped_path  # noqa: PLC0415 - numpy, only here

    catalog = load(shipped_path(), directory.catalog, directory.models)
    return [
        Model(spec.id, spec.path.name, can_be_pulled=spec.entry.source is not None)
        for spec in catalog
        if spec.path.parent == directory.models and spec.path.exists()
    ]


def _require_empty(directory: DataDir, *, replace: bool) -> None:
    there = [
        path.name
        for path in (directory.database, directory.path / SETTINGS, directory.catalog)
        if path.exists()
    ]
    if there and not replace:
        raise StoreFailed(
            f"{directory.path} has {', '.join(there)} already: name another --data-dir, or say "
            "--replace, which keeps what is there beside it."
        )


def _missing(directory: DataDir, manifest: Manifest) -> list[str]:
    absent = [model for model in manifest.models if not (directory.models / model.file).exists()]
    return [
        f"gigarouter models pull {model.id}"
        if model.can_be_pulled
        else f"{model.id}: copy models/{model.file} from the other machine to {directory.models}"
        for model in absent
    ]


def _to_look_at(directory: DataDir) -> list[str]:
    """Return a line for the settings that may say something of the machine that was left."""
    path = directory.path / SETTINGS
    if not path.exists():
        return []
    given = tomllib.loads(path.read_text("utf-8"))
    named = [name for name in OF_THE_MACHINE if _value(given, name) is not None]
    return [f"look at these settings of the other machine: {', '.join(named)}"] if named else []


def _value(given: object, name: str) -> object:
    for part in name.split("."):
        given = given.get(part) if isinstance(given, dict) else None
    return given
