"""Main: the command line `gigarouter`.

Owns the names of commands and flags, and the exit codes: 0 done, 1 failed (one line on standard
error says why and what to do), 2 wrong usage. Deliberately does nothing itself.
"""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from appliance import settings
from appliance.cli import printing
from appliance.cli.operator import reach
from appliance.core.errors import ApplianceError
from appliance.native import build
from appliance.native.build import BuildFailed
from appliance.store.datadir import DataDir
from appliance.wire.admin import AddModelOrder, MintOrder, TopUpOrder

F = TypeVar("F", bound=Callable[..., Any])

DATA_DIR_HELP = "Where everything is kept; also GIGAROUTER_DATA_DIR."


def everywhere(command: F) -> F:
    """Give a command the flags that every command has: `directory` and `as_json`."""

    @click.option("--data-dir", type=click.Path(path_type=Path), help=DATA_DIR_HELP)
    @click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
    @wraps(command)
    def run(*arguments: Any, data_dir: Path | None, **options: Any) -> Any:
        return command(*arguments, directory=DataDir(settings.data_dir(data_dir)), **options)

    return run  # type: ignore[return-value]  # wraps() keeps the signature click needs


class Commands(click.Group):
    """Turns our errors into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ApplianceError as error:
            click.echo(f"gigarouter: {error.message}", err=True)
            ctx.exit(1)
        except BuildFailed as error:
            click.echo(f"gigarouter: {error}", err=True)
            ctx.exit(1)
        except UnicodeEncodeError:
            click.echo("gigarouter: an argument is not valid text (UTF-8)", err=True)
            ctx.exit(1)
        except OSError as error:
            if error.filename is None:
                raise
            # A path that is not ours to read, or not what we need there.
            click.echo(f"gigarouter: {error.filename}: {error.strerror}", err=True)
            ctx.exit(1)


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(package_name="gigarouter", message="gigarouter %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Serve embedding and rerank models on this machine, with keys and prepaid credits."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command()
@click.option("--host", help="Address to bind.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to bind.  [default: 8642]")
@click.option("--log-format", type=click.Choice(settings.LOG_FORMATS))
@click.option("--tls-cert", help="PEM certificate chain.")
@click.option("--tls-key", help="Its PKCS#8 private key.")
@click.option("--fake", is_flag=True, default=None, help="Made-up vectors: no model is computed.")
@everywhere
def serve(
    directory: DataDir, *, as_json: bool, host: str | None, port: int | None,
    log_format: str | None, tls_cert: str | None, tls_key: str | None, fake: bool | None,
) -> None:  # fmt: skip
    """Run the server until SIGTERM or Ctrl-C."""
    del as_json  # it prints nothing on standard output
    if directory.is_locked():
        raise directory.busy()
    # Imported late: the server's libraries take half a second that no other command needs.
    from appliance.serve import serve as run  # noqa: PLC0415

    flags = {
        "host": host, "port": port, "log_format": log_format, "tls.cert": tls_cert,
        "tls.key": tls_key, "fake_engine": fake,
    }  # fmt: skip
    sys.exit(run(directory, settings.load(directory.path, flags)))


@cli.group(cls=Commands)
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
        key = operator.mint(msgspec.convert(order, MintOrder))
    printing.document(key) if as_json else printing.minted(key)


@keys.command("list")
@everywhere
def list_keys(directory: DataDir, *, as_json: bool) -> None:
    """List every key."""
    with reach(directory) as operator:
        views = operator.keys()
    printing.document(views) if as_json else printing.keys(views)


@keys.command("show")
@click.argument("key_id", metavar="ID")
@everywhere
def show_key(directory: DataDir, *, as_json: bool, key_id: str) -> None:
    """Show one key."""
    with reach(directory) as operator:
        view = operator.key(key_id)
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.argument("usd", metavar="USD")
@everywhere
def topup(directory: DataDir, *, as_json: bool, key_id: str, usd: str) -> None:
    """Add credits to a key."""
    with reach(directory) as operator:
        view = operator.top_up(key_id, TopUpOrder(credit=usd))
    printing.document(view) if as_json else printing.key(view)


@keys.command()
@click.argument("key_id", metavar="ID")
@everywhere
def revoke(directory: DataDir, *, as_json: bool, key_id: str) -> None:
    """Refuse a key from now on."""
    with reach(directory) as operator:
        view = operator.revoke(key_id)
    printing.document(view) if as_json else printing.key(view)


@cli.group(cls=Commands)
def models() -> None:
    """List, show and add models."""


@models.command("list")
@everywhere
def list_models(directory: DataDir, *, as_json: bool) -> None:
    """List every model."""
    with reach(directory) as operator:
        views = operator.models()
    printing.document(views) if as_json else printing.models(views.data)


@models.command("show")
@click.argument("model_id", metavar="ID")
@everywhere
def show_model(directory: DataDir, *, as_json: bool, model_id: str) -> None:
    """Show one model."""
    with reach(directory) as operator:
        view = operator.model(model_id)
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
        view = operator.add_model(order)
    printing.document(view) if as_json else printing.model(view)


@cli.command()
@click.option("--url", help="Server to measure.  [default: the one of this data directory]")
@click.option("--key", default="none", help="Its key, with --url.")
@click.option("--path", default="/v1/embeddings", help="Its embeddings path.")
@click.option("--rerank-path", default="/v1/rerank", help="Its rerank path.")
@click.option("--against", help="A peer: both are measured in turn, and ratios are printed.")
@click.option("--against-key", default="none")
@click.option("--against-path", default="/v1/embeddings")
@click.option("--against-rerank-path", default="/v1/rerank")
@click.option("--against-model", default="", help="What the peer calls the model.")
@click.option("--workloads", help="Names, separated by commas.  [default: all]")
@click.option("--seconds", default=5.0, help="Of each run.", show_default=True)
@click.option("--rounds", default=5, help="Runs of each workload.", show_default=True)
@click.option("--engine", is_flag=True, help="The raw engine in this process: the ceiling.")
@everywhere
def bench(
    directory: DataDir, *, as_json: bool, url: str | None, key: str, path: str, rerank_path: str,
    against: str | None, against_key: str, against_path: str, against_rerank_path: str,
    against_model: str, workloads: str | None, seconds: float, rounds: int, engine: bool,
) -> None:  # fmt: skip
    """Measure a server with fixed, seeded loads, alone or in turn with a peer."""
    from appliance.bench.comparison import Side  # noqa: PLC0415
    from appliance.bench.driver import Target  # noqa: PLC0415
    from appliance.cli import bench as command  # noqa: PLC0415

    loads = command.chosen(workloads)
    if engine:
        command.run_ceiling(directory, loads, seconds=seconds, as_json=as_json)
        return
    theirs = against and Side(
        Target(against, against_path, against_key), against_rerank_path,
        against_model or command.EMBED, against_model or command.RERANK,
    )  # fmt: skip
    mine = (
        nullcontext(Side(Target(url, path, key), rerank_path, command.EMBED, command.RERANK))
        if url
        else command.own_side(directory, path=path, rerank_path=rerank_path)
    )
    with mine as ours:
        command.run(ours, theirs or None, loads, seconds=seconds, rounds=rounds, as_json=as_json)


@cli.group()
def engine() -> None:
    """Build and show the compiled engine (llama.cpp)."""


@engine.command("install")
@click.option("--force", is_flag=True, help="Compile even if it was built before.")
def install_engine(*, force: bool) -> None:
    """Compile the engine for this processor, with our kernels; CMAKE_ARGS is respected."""
    changed = build.install(
        lambda text: click.echo(f"gigarouter: {text}", err=True),
        environment=settings.environment(),
        force=force,
    )
    click.echo("installed; restart the server to use it" if changed else "up to date")


@engine.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def show_engine(*, as_json: bool) -> None:
    """Show which engine is installed and what it can do."""
    settings.prepare_native_library()
    from appliance.engine.llama import library  # noqa: PLC0415 - loads native code

    facts = library.facts()
    printing.document(facts) if as_json else printing.pairs(facts)


def main() -> None:
    """Run the command line and leave with its exit code."""
    os.umask(0o077)  # whatever a command writes is its owner's alone
    cli(prog_name="gigarouter")
