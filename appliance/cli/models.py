"""Models: `gigarouter models …`."""

from pathlib import Path

import click

from appliance.cli import printing, verbs
from appliance.cli.operator import reach
from appliance.cli.options import Commands, everywhere
from appliance.store.datadir import DataDir
from appliance.wire.models import AddModelOrder, PriceOrder


@click.group(cls=Commands)
def models() -> None:
    """List, show, add and price models."""


@models.command("list")
@everywhere
def list_models(directory: DataDir, *, as_json: bool) -> None:
    """List every model."""
    with reach(directory) as operator:
        views = operator.do(verbs.LIST_MODELS)
    printing.document(views) if as_json else printing.models(views.data)


@models.command("show")
@click.argument("model_id", metavar="ID")
@everywhere
def show_model(directory: DataDir, *, as_json: bool, model_id: str) -> None:
    """Show one model."""
    with reach(directory) as operator:
        view = operator.do(verbs.SHOW_MODEL, model_id)
    printing.document(view) if as_json else printing.model(view)


@models.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--id", "model_id", help="What clients will send as model.")
@click.option("--task", type=click.Choice(["embeddings", "rerank"]))
@everywhere
def add(
    directory: DataDir, *, as_json: bool, path: Path, model_id: str | None, task: str | None
) -> None:
    """Put a local .gguf file, or a Hugging Face folder (converted), into your catalogue."""
    order = AddModelOrder(path=str(path.absolute()), id=model_id, task=task)
    with reach(directory) as operator:
        view = operator.do(verbs.ADD_MODEL, order=order)
    printing.document(view) if as_json else printing.model(view)


@models.command()
@click.argument("model_id", metavar="ID")
@click.option("--realtime", required=True, help="Credits for 1M tokens or 1k documents.")
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
