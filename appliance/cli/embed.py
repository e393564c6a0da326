"""Embed: `gigarouter embed`: the vectors of all texts of a file, made by a running server.

Owns its flags, and what is said of it.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from appliance import settings
from appliance.cli import printing, progress
from appliance.cli.options import everywhere
from appliance.core.clock import SystemClock
from appliance.core.errors import ApplianceError, InvalidRequest, ServerUnreachable
from appliance.core.text import visible
from appliance.store.datadir import DataDir

FORMATS = ("npy", "jsonl", "parquet")
INPUT_FORMATS = ("jsonl", "csv", "tsv", "parquet", "text")
KEY = "embed --key"
NS_PER_S = 1_000_000_000


class Embedded(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    out: str
    format: str
    model: str
    rows: int
    resumed_rows: int
    """Of an earlier run that ended early."""
    dimensions: int
    tokens: int
    """Of this run, like the cost."""
    cost: str
    seconds: float
    rows_per_s: float


@click.command()
@click.argument("source", metavar="FILE")
@click.option("--model", required=True, help="Its id or alias.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: FILE with .npy]")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="[default: by --out's ending]")
@click.option("--input-format", type=click.Choice(INPUT_FORMATS), help="[default: by the ending]")
@click.option("--column", help="Where the texts are.  [default: text, or the only one]")
@click.option("--url", help="A server elsewhere.  [default: the one of this data directory]")
@click.option("--key", help="Who pays; '-' reads a line.  [env: GIGAROUTER_KEY]")
@click.option("--tier", type=click.Choice(("realtime", "batch")), default="realtime")
@click.option("--input-type", type=click.Choice(("query", "document")))
@click.option("--dimensions", type=click.IntRange(1), help="Shorter vectors, of models with such.")
@click.option("--batch-size", type=click.IntRange(1, 2048), default=64, help="Texts of a call.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, help="Calls at one time.")
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@click.option("--restart", is_flag=True, help="Do not go on with what an earlier run has made.")
@everywhere
def embed(directory: DataDir, *, as_json: bool, source: str, **options: Any) -> None:
    """Write the vectors of all texts of FILE (JSON lines, CSV, TSV, Parquet, text; - for stdin).

    A run that ends early leaves FILE.part beside the output; the same command goes on with it.
    """
    settings.keep_numpy_single_threaded()
    out = _out(source, options["out"])
    if out.exists() and not options["overwrite"]:
        raise InvalidRequest(f"{out} exists; --overwrite replaces it, --out names another")
    made = _make(directory, source, out, options)
    if as_json:
        printing.document(made)
        return
    resumed = f", {made.resumed_rows:,} of them by an earlier run" if made.resumed_rows else ""
    click.echo(
        f"{made.rows:,} vectors of {made.dimensions} dimensions in {made.out}{resumed}: "
        f"{made.tokens:,} tokens, ${made.cost}, {made.seconds:.1f} s "
        f"({made.rows_per_s:,.0f} rows/s)",
        err=True,
    )


def _out(source: str, asked: Path | None) -> Path:
    if asked is not None:
        return asked
    if source == "-":
        raise click.UsageError("--out is needed where standard input is read")
    return Path(source).with_suffix(".npy")


def _key(source: str, given: str | None) -> str:
    """Return the key that pays; one on the command line is shown to users of this machine."""
    if given == "-":
        if source == "-":
            raise click.UsageError("standard input is either the texts or the key")
        return sys.stdin.readline().strip()
    key = given or settings.bench_key(KEY)
    if key is None:
        raise click.UsageError(f"who pays? --key, or {settings.BENCH_KEYS[KEY]}")
    return key


def _server(directory: DataDir, url: str | None) -> tuple[str, bool]:
    """Return the address of the server, and whether it is this machine's own."""
    if url is not None:
        if not url.lower().startswith(("http://", "https://")):
            raise click.UsageError(f"--url begins with http:// or https://, unlike {url!r:.100}")
        return url, False
    note = directory.server()
    if note is None:
        raise ServerUnreachable(
            f"no server runs for {directory.path}; start one (gigarouter serve), or give --url"
        )
    return note.connect_url or note.url, True


def _make(directory: DataDir, source: str, out: Path, options: dict[str, Any]) -> Embedded:
    # Late, like other commands' own: numpy takes a tenth of a second.
    from appliance.bulk import embedding_run, formats  # noqa: PLC0415
    from appliance.bulk.part_file import PartFile, order_of  # noqa: PLC0415
    from appliance.bulk.texts import Texts  # noqa: PLC0415

    key = _key(source, options["key"])
    address, is_local = _server(directory, options["url"])
    kind = formats.format_of(out, options["kind"])
    texts = Texts(source, options["input_format"], options["column"])
    asked = {name: options[name] for name in ("input_type", "dimensions")}
    identity = texts.identity()
    if identity is not None:
        embedding_run.require_whole(texts.rows())
    order = None if identity is None else order_of([identity, options["model"], asked])
    part = PartFile(out.with_name(f"{out.name}.part"), order, restart=options["restart"])
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    try:
        totals = asyncio.run(_run(texts, part, address, key, options, is_local=is_local))
    except ApplianceError:
        if part.rows and order is not None:
            click.echo(
                f"gigarouter: {part.rows:,} vectors are kept in {part.path}; the same command "
                "goes on with them",
                err=True,
            )
        raise
    finally:
        part.close()
    if part.head is None:
        part.path.unlink()
        raise InvalidRequest(f"{source} has no texts")
    formats.write(out, kind, part.rows, part.head.dimensions, part.blocks())
    part.path.unlink()
    seconds = (clock.monotonic_ns() - began_ns) / NS_PER_S
    return Embedded(
        out=str(out),
        format=kind,
        model=options["model"],
        rows=totals.rows,
        resumed_rows=totals.resumed,
        dimensions=part.head.dimensions,
        tokens=totals.tokens,
        cost=f"{totals.cost:f}",
        seconds=round(seconds, 3),
        rows_per_s=round((totals.rows - totals.resumed) / seconds, 1),
    )


def _say_retry(why: str) -> None:
    over = "\r\x1b[K" if sys.stderr.isatty() else ""  # the line of the progress
    click.echo(f"{over}gigarouter: {visible(why)}", err=True)


async def _run(
    texts: Any, part: Any, url: str, key: str, options: dict[str, Any], *, is_local: bool
) -> Any:
    from appliance.bulk import embedding_run  # noqa: PLC0415 - as above
    from appliance.client.embedding_calls import EmbeddingCalls  # noqa: PLC0415

    calls = EmbeddingCalls(url, key, is_local=is_local, retried=_say_retry)
    fields = {name: options[name] for name in ("input_type", "dimensions")}
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    with progress.rows() as show:

        def said(totals: embedding_run.Totals) -> None:
            seconds = (clock.monotonic_ns() - began_ns) / NS_PER_S
            show(totals.rows, texts.share, (totals.rows - totals.resumed) / seconds)

        try:
            return await embedding_run.run(
                texts.rows(),
                lambda some, place: calls.embed(
                    embedding_run.body_of(options["model"], some, fields),
                    tier=options["tier"],
                    place=place,
                ),
                part,
                size=options["batch_size"],
                in_flight=options["concurrency"],
                progress=said,
            )
        finally:
            await calls.close()
