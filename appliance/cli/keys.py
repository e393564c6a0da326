"""Keys: `gigarouter keys …`."""

from typing import Any

import click
import msgspec

from appliance.cli import printing
from appliance.cli.operator import reach
from appliance.cli.options import Commands, everywhere
from appliance.client import verbs
from appliance.store.datadir import DataDir
from appliance.wire.keys import ExpireOrder, LimitOrder, MintOrder, RotateOrder, TopUpOrder

ONCE = click.option(
    "--idempotency-key", metavar="TEXT", help="Do it once, however often this is run within a day."
)


NONE = "none"
"""Takes a limit away."""


@click.group(cls=Commands)
def keys() -> None:
    """Look after keys, from mint to forget."""


@keys.command()
@click.argument("name")
@click.option("--credit", default="0", help="USD to begin with, or 'unlimited'.")
@click.option("--daily-budget", help="USD a UTC day.")
@click.option("--rpm", type=int, help="Requests a minute.")
@click.option("--tpm", type=int, help="Tokens a minute.")
@click.option("--concurrency", type=int, help="Calls at one time.")
@click.option("--models", help="Ids of the models it may call, separated by commas.")
@click.option("--expires", help="Like 90m, 12h, 30d or 2w.")
@click.option("--scopes", help="Some of infer, usage, admin.  [default: infer,usage]")
@ONCE
@everywhere
def mint(
    directory: DataDir, *, as_json: bool, models: str | None, scopes: str | None, **order: Any
) -> None:
    """Make a key; it is printed once."""
    order |= {"models": _names(models), "scopes": _names(scopes)}
    with reach(directory) as operator:
        key = operator.do(verbs.MINT, order=msgspec.convert(order, MintOrder))
    printing.document(key) if as_json else printing.minted(key)


def _limit(name: str, text: str) -> str | int | list[str] | None:
    """Return a limit as the order has it; None: it is taken away."""
    if text == NONE:
        return None
    if name == "models":
        return _names(text)
    if name == "daily_budget":
        return text
    if not (text.isascii() and text.isdecimal()):
        raise click.BadParameter(f"a whole number or '{NONE}', not {text!r}", param_hint=name)
    return int(text)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


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
@ONCE
@everywhere
def topup(
    directory: DataDir, *, as_json: bool, key_id: str, usd: str, idempotency_key: str | None
) -> None:
    """Add credits to a key."""
    order = TopUpOrder(credit=usd, idempotency_key=idempotency_key)
    with reach(directory) as operator:
        view = operator.do(verbs.TOP_UP, key_id, order=order)
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@everywhere
def revoke(directory: DataDir, *, as_json: bool, key_id: str) -> None:
    """Refuse a key from now on."""
    with reach(directory) as operator:
        view = operator.do(verbs.REVOKE, key_id)
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--overlap", default="24h", show_default=True, help="How long the old one works.")
@everywhere
def rotate(directory: DataDir, *, as_json: bool, key_id: str, overlap: str) -> None:
    """Give a key a new secret; it is printed once."""
    with reach(directory) as operator:
        key = operator.do(verbs.ROTATE, key_id, order=RotateOrder(overlap=overlap))
    printing.document(key) if as_json else printing.rotated(key)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.argument("when", metavar="WHEN|never")
@everywhere
def expire(directory: DataDir, *, as_json: bool, key_id: str, when: str) -> None:
    """Change when a key expires: 30d from now, or never."""
    with reach(directory) as operator:
        view = operator.do(verbs.EXPIRE, key_id, order=ExpireOrder(expires=when))
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--daily-budget", metavar="USD|none", help="USD a UTC day.")
@click.option("--rpm", metavar="N|none", help="Requests a minute.")
@click.option("--tpm", metavar="N|none", help="Tokens a minute.")
@click.option("--concurrency", metavar="N|none", help="Calls at one time.")
@click.option("--models", metavar="ID,ID|none", help="The models that it may call; none: all.")
@everywhere
def limit(directory: DataDir, *, as_json: bool, key_id: str, **limits: str | None) -> None:
    """Change limits of a key; 'none' takes one away, and what is not named stays."""
    given = {name: _limit(name, text) for name, text in limits.items() if text is not None}
    order = msgspec.convert(given, LimitOrder)
    with reach(directory) as operator:
        view = operator.do(verbs.LIMIT, key_id, order=order)
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@everywhere
def forget(directory: DataDir, *, as_json: bool, key_id: str) -> None:
    """Revoke a key and remove its name and secrets for good."""
    with reach(directory) as operator:
        view = operator.do(verbs.FORGET, key_id)
    printing.document(view) if as_json else printing.key(view)
