"""Models: `gigarouter models …`."""

import re
import time
from pathlib import Path

import click
import msgspec

from appliance.cli import printing, progress
from appliance.cli.operator import Operator, reach
from appliance.cli.options import Commands, everywhere
from appliance.client import verbs
from appliance.core.errors import DownloadCancelled, DownloadFailed, LoadFailed
from appliance.core.text import visible
from appliance.store.datadir import DataDir
from appliance.store.incoming import noted
from appliance.wire.downloads import DownloadView, HubModelOrder
from appliance.wire.engines import PinOrder
from appliance.wire.models import AddModelOrder, AliasOrder, ModelOrder, PriceOrder, TryOrder

LOOK_AGAIN_S = 0.2
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:.+)?", re.ASCII)


@click.group(cls=Commands)
def models() -> None:
    """List, show, add, pull, try, verify, load, unload, remove, price and name models."""


@models.command("list")
@everywhere
@click.pass_context
def list_models(ctx: click.Context, directory: DataDir, *, as_json: bool) -> None:
    """List every model.

    Exit code 1: your models.toml cannot be read, and only the shipped models are listed.
    """
    with reach(directory) as operator:
        views = operator.do(verbs.LIST_MODELS)
    printing.document(views) if as_json else printing.models(views.data)
    if views.warning:
        click.echo(f"gigarouter: {views.warning}", err=True)
        ctx.exit(1)


@models.command("show")
@click.argument("model_id", metavar="ID")
@everywhere
def show_model(directory: DataDir, *, as_json: bool, model_id: str) -> None:
    """Show one model."""
    with reach(directory) as operator:
        view = operator.do(verbs.SHOW_MODEL, model_id)
    printing.document(view) if as_json else printing.model(view)


@models.command()
@click.argument("source", metavar="PATH|HF_REPO[:FILE]")
@click.option("--id", "model_id", help="What clients will send as model.")
@click.option("--task", type=click.Choice(["embeddings", "rerank"]))
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "last"]),
    help="How tokens become a vector.  [default: what its files say]",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Take the place of the model with this id; its price and names stay.",
)
@everywhere
def add(
    directory: DataDir,
    *,
    as_json: bool,
    source: str,
    model_id: str | None,
    task: str | None,
    pooling: str | None,
    replace: bool,
) -> None:
    """Put a model into your catalogue.

    PATH is a .gguf file or a Hugging Face folder (converted) on this machine. HF_REPO is a
    repository of the hub, whose file is read as far as it says what it is; pull it then. One
    that replaces a model which is here is fetched and tried at once, and only then counts.
    """
    with reach(directory) as operator:
        if _is_repository(source):
            repo, _, file = source.partition(":")
            wanted = HubModelOrder(repo, file or None, model_id, task, pooling, replace)
            with progress.addition(repo, model_id) as watch:
                view = operator.do(verbs.ADD_FROM_HUB, order=wanted, watch=watch)
            if view.download is not None:
                _follow(operator, operator.do(verbs.SHOW_DOWNLOAD, view.download))
                now = operator.do(verbs.SHOW_MODEL, view.id)
                view = msgspec.structs.replace(now, notes=view.notes)
        else:
            path = str(Path(source).absolute())
            with (
                noted(directory.incoming, path) as note,
                progress.addition(path, model_id) as watch,
            ):
                order = AddModelOrder(path, model_id, task, pooling, replace, note)
                view = operator.do(verbs.ADD_MODEL, order=order, watch=watch)
    printing.document(view) if as_json else printing.model(view)
    for note in view.notes:
        click.echo(f"Note: {visible(note)}", err=True)
    if view.reason:
        click.echo(f"Fetch it with: gigarouter models pull {view.id}", err=True)


def _is_repository(source: str) -> bool:
    """Return whether a source is a repository of the hub: `owner/name`, and not a file here."""
    return REPOSITORY.fullmatch(source) is not None and not Path(source).exists()


@models.command()
@click.argument("model_id", metavar="ID")
@everywhere
def pull(directory: DataDir, *, as_json: bool, model_id: str) -> None:
    """Fetch a model of the catalogue; a pull that was cut off goes on where it ended."""
    with reach(directory) as operator:
        view = _follow(operator, operator.do(verbs.PULL_MODEL, order=ModelOrder(id=model_id)))
    printing.document(view) if as_json else click.echo(
        f"{view.model} is here: {view.bytes:,} bytes"
    )


def _follow(operator: Operator, view: DownloadView) -> DownloadView:
    """Show how far a download is, and return it when it is done; Ctrl-C cancels it.

    Raises:
        DownloadFailed: it ended otherwise.
        DownloadCancelled: by Ctrl-C.
    """
    with progress.download(view) as show:
        try:
            while view.state not in progress.ENDED:
                time.sleep(LOOK_AGAIN_S)
                view = operator.do(verbs.SHOW_DOWNLOAD, view.id)
                show(view)
        except KeyboardInterrupt:
            operator.do(verbs.CANCEL_DOWNLOAD, view.id)
            raise DownloadCancelled from None
    if view.state != "done":
        raise DownloadFailed(view.error or view.state)
    return view


@models.command()
@click.argument("model_id", metavar="ID")
@everywhere
def verify(directory: DataDir, *, as_json: bool, model_id: str) -> None:
    """Hash a model's file and hold it against the catalogue."""
    with reach(directory) as operator:
        view = operator.do(verbs.VERIFY_MODEL, order=ModelOrder(id=model_id))
    if as_json:
        printing.document(view)
    elif view.matches is None:
        click.echo(f"{view.file}: sha256 {view.sha256}; the catalogue names none")
    elif view.matches:
        click.echo(f"{view.file} is the file that the catalogue names (sha256 {view.sha256})")
    if view.matches is False:
        raise DownloadFailed(
            f"{view.file} is not the file that the catalogue names: its sha256 is {view.sha256}. "
            f"Remove it and pull again: gigarouter models remove {view.id}"
        )


@models.command("try")
@click.argument("model_id", metavar="ID")
@click.option("--long", is_flag=True, help="Sequences up to the longest that it takes, too.")
@everywhere
def try_model(directory: DataDir, *, as_json: bool, model_id: str, long: bool) -> None:
    """Try a model's file again, in a process that may die of it.

    What is found counts from then on. With --long, sequences of twice as many tokens each, up to
    the longest, are computed on all cores, each with its time and its memory; that can take an
    hour. Exit code 1: the file is not used.
    """
    with reach(directory) as operator, progress.trial(model_id) as watch:
        order = TryOrder(id=model_id, long=long)
        view = operator.do(verbs.TRY_MODEL, order=order, watch=watch)
    printing.document(view) if as_json else printing.trial(view)
    if view.reason:
        raise LoadFailed(f"{view.model} is not used: {visible(view.reason)}")


@models.command("remove")
@click.argument("model_id", metavar="ID")
@everywhere
def remove_model(directory: DataDir, *, as_json: bool, model_id: str) -> None:
    """Remove a model's file, and its entry if nothing else says where it is from."""
    with reach(directory) as operator:
        view = operator.do(verbs.REMOVE_MODEL, order=ModelOrder(id=model_id))
    if as_json:
        printing.document(view)
    elif view.freed:
        click.echo(f"{view.id} is removed: that freed {view.freed:,} bytes of the disk")
    else:
        click.echo(f"{view.id} is removed; its file stays on the disk under other names")


@models.command()
@click.argument("model_id", metavar="ID")
@click.option("--realtime", required=True, help="USD for 1M tokens or 1k documents.")
@click.option("--batch", help="The same for the batch tier.  [default: half of it]")
@everywhere
def price(
    directory: DataDir, *, as_json: bool, model_id: str, realtime: str, batch: str | None
) -> None:
    """Change what a model costs; new calls pay it."""
    order = PriceOrder(id=model_id, realtime=realtime, batch=batch)
    with reach(directory) as operator:
        view = operator.do(verbs.PRICE_MODEL, order=order)
    printing.document(view) if as_json else printing.model(view)


@models.command()
@click.argument("model_id", metavar="ID")
@click.argument("aliases", nargs=-1, metavar="[NAME]...")
@everywhere
def alias(directory: DataDir, *, as_json: bool, model_id: str, aliases: tuple[str, ...]) -> None:
    """Change which other names a model answers to; without names it answers to its id alone."""
    with reach(directory) as operator:
        view = operator.do(verbs.ALIAS_MODEL, order=AliasOrder(id=model_id, aliases=list(aliases)))
    printing.document(view) if as_json else printing.model(view)


@models.command()
@click.argument("model_id", metavar="ID")
@click.option("--pin/--no-pin", default=None, help="Keep it in memory, whatever others need.")
@everywhere
def load(directory: DataDir, *, as_json: bool, model_id: str, pin: bool | None) -> None:
    """Load a model into the running server's memory now."""
    with reach(directory) as operator:
        view = operator.do(verbs.LOAD_MODEL, order=ModelOrder(id=model_id))
        if pin is not None:
            view = operator.do(verbs.PIN_MODEL, order=PinOrder(id=model_id, pinned=pin))
    printing.document(view) if as_json else click.echo(
        f"{view.model} is {view.state}{' and pinned' if view.pinned else ''}: "
        f"{view.bytes / 1e6:,.0f} MB"
    )


@models.command()
@click.argument("model_id", metavar="ID")
@everywhere
def unload(directory: DataDir, *, as_json: bool, model_id: str) -> None:
    """Free a model's memory in the running server, after the calls that compute with it."""
    with reach(directory) as operator:
        view = operator.do(verbs.UNLOAD_MODEL, order=ModelOrder(id=model_id))
    printing.document(view) if as_json else click.echo(f"{view.model} is {view.state}")
