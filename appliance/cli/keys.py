"""Keys: `gigarouter keys …`."""

from typing import Any

import click
import msgspec

from appliance.cli import printing, verbs
from appliance.cli.operator import reach
from appliance.cli.options import Commands, everywhere
from appliance.store.datadir import DataDir
from appliance.wire.keys import MintOrder, TopUpOrder


@click.group(cls=Commands)
def keys() -> None:
    """Mint, list, show, top up and revoke keys."""


@keys.command()
@click.argument("name")
@click.option("--credit", default="0", help="Credits (USD) to begin with, or 'unlimited'.")
@click.option("--daily-budget", help="Credits a UTC day.")
@click.option("--rpm", type=int, help="Requests a minute.")
@click.option("--tpm", type=int, help="Tokens a minute.")
@click.option("--concurrency", type=int, help="Calls at one time.")
@click.option("--models", help="Ids of the models it may call, separated by commas.")
@click.option("--expires", help="Like 90m, 12h, 30d or 2w.")
@everywhere
def mint(directory: DataDir, *, as_json: bool, models: str | None, **order: Any) -> None:
    """Make a key; it is printed once."""
    if models is not None:
        order["models"] = [name.strip() for name in models.split(",") if name.strip()]
    with reach(directory) as operator:
        key = operator.do(verbs.MINT, order=msgspec.convert(order, MintOrder))
    printing.document(key) if as_json else printing.minted(key)


@keys.command("list")
@everywhere
def list_keys(directory: DataDir, *, as_json: bool) -> None:
    """List every key."""
    with reach(directory) as operator:
        views = operator.do(verbs.LIST_KEYS).data
    printing.document(views) if as_json else printing.keys(views)


@keys.command("show")
@click.argument("key_id", metavar="ID")
@everywhere
def show_key(directory: DataDir, *, as_json: bool, key_id: str) -> None:
    """Show one key."""
    with reach(directory) as operator:
        view = operator.do(verbs.SHOW_KEY, key_id)
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.argument("usd", metavar="USD")
@everywhere
def topup(directory: DataDir, *, as_json: bool, key_id: str, usd: str) -> None:
    """Add credits to a key."""
    with reach(directory) as operator:
        view = operator.do(verbs.TOP_UP, key_id, order=TopUpOrder(credit=usd))
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@everywhere
def revoke(directory: DataDir, *, as_json: bool, key_id: str) -> None:
    """Refuse a key from now on."""
    with reach(directory) as operator:
        view = operator.do(verbs.REVOKE, key_id)
    printing.document(view) if as_json else printing.key(view)
