"""Bench: `gigarouter bench`: measures this server, another one, and the engine without a server.

Owns the table that it prints.
"""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from appliance import machine, settings
from appliance.bench import report
from appliance.bench.ceiling import Ceiling, measure
from appliance.bench.comparison import Figures, Result, Side, compare
from appliance.bench.driver import Target
from appliance.bench.report import Report
from appliance.bench.workload import WORKLOADS, Workload, named
from appliance.catalog.catalog import load, shipped_path
from appliance.cli import printing
from appliance.cli.operator import reach
from appliance.client import verbs
from appliance.core.clock import SystemClock
from appliance.core.errors import ServerUnreachable
from appliance.engine.loader import LlamaLoader
from appliance.store.datadir import DataDir
from appliance.wire.keys import MintOrder

EMBED = "sentence-transformers/all-MiniLM-L6-v2"
RERANK = "gigarouter/starter-rerank"
REST_S = 3.0
"""Before each run of two servers in turn."""


@contextmanager
def own_side(directory: DataDir, *, path: str, rerank_path: str) -> Iterator[Side]:
    """Yield the running server of this data directory, with a key that is revoked at the end.

    Raises:
        ServerUnreachable: no server runs.
    """
    note = directory.server()
    if note is None:
        raise ServerUnreachable(
            f"no server runs for {directory.path}; start one, or give --url and --key"
        )
    with reach(directory) as operator:
        key = operator.do(verbs.MINT, order=MintOrder(name="bench", credit="unlimited"))
        try:
            yield Side(
                Target(note.connect_url or note.url, path, key.key), rerank_path, EMBED, RERANK
            )
        finally:
            operator.do(verbs.REVOKE, key.id)


def secret(option: str, given: str | None) -> str:
    """Return a key that a command was given: its value, a line of standard input, or a variable's.

    One on the command line is shown to every user of this machine, which is said.
    """
    if given is None:
        return settings.bench_key(option) or "none"
    if given == "-":
        return sys.stdin.readline().strip()
    if given != "none":
        click.echo(
            f"gigarouter: a key after {option} is shown by `ps`; give - and a line of standard "
            f"input, or {settings.BENCH_KEYS[option]}",
            err=True,
        )
    return given


def run(
    ours: Side,
    theirs: Side | None,
    workloads: Sequence[Workload],
    *,
    seconds: float,
    rounds: int,
    rest_s: float,
    as_json: bool,
) -> Report:
    """Measure one server or two in turn, and print each workload when it is done."""

    async def collect() -> list[Result]:
        found = []
        async for result in compare(
            workloads,
            ours,
            theirs,
            seconds=seconds,
            rounds=rounds,
            rest_s=rest_s,
            clock=SystemClock(),
        ):
            found.append(result)
            if not as_json:
                _print(result)
        return found

    found = report.of(asyncio.run(collect()))
    if as_json:
        printing.document(found)
    return found


def check(earlier: Report, now: Report, *, tolerance: float) -> None:
    """Compare with an earlier report; exit with 1 if anything became slower.

    Raises:
        InvalidRequest: they cannot be compared; `param` is `check`.
    """
    found = report.slower(earlier, now, tolerance=tolerance)
    for line in found:
        click.echo(f"slower: {line}", err=True)
    if found:
        raise SystemExit(1)
    commit = earlier.setting.commit or earlier.setting.version
    click.echo(f"nothing is slower than at {commit} by more than {tolerance:.0%}", err=True)


def run_ceiling(
    directory: DataDir, workloads: Sequence[Workload], *, seconds: float, as_json: bool
) -> None:
    """Measure the engine in this process, tuned as a server would, and print the rates."""
    spec = load(shipped_path(), directory.catalog, directory.models).find(EMBED)
    clock = SystemClock()
    given = settings.load(directory.path, {})
    loader = LlamaLoader(
        given.engine, cores=given.threads or machine.cores(), tunings=directory.models, clock=clock
    )
    found: list[Ceiling] = []
    for workload in workloads:
        if workload.kind == "embeddings":
            ceiling = measure(spec, workload, loader, seconds=seconds, clock=clock)
            found.append(ceiling)
            if not as_json:
                click.echo(
                    f"{ceiling.workload:10} {ceiling.workers} x {ceiling.threads}  "
                    f"{ceiling.texts_per_s:9.1f} texts/s {ceiling.tokens_per_s:9.0f} tokens/s "
                    f"{ceiling.batch_ms:8.1f} ms a batch {ceiling.gflops:6.0f} GFLOP/s"
                    + (f" of {ceiling.peak_gflops:.0f}" if ceiling.peak_gflops else "")
                )
    if as_json:
        printing.document(found)


def chosen(names: str | None) -> list[Workload]:
    """Return the workloads of a comma-separated list.

    Raises:
        BadParameter: one of them is unknown.
    """
    try:
        return named([name.strip() for name in (names or "").split(",") if name.strip()])
    except KeyError as error:
        known = ", ".join(workload.name for workload in WORKLOADS)
        raise click.BadParameter(f"{error.args[0]!r} is not one of {known}") from None


def _print(result: Result) -> None:
    click.echo(f"{result.workload:10} {_line(result.ours)}")
    if result.theirs is not None:
        click.echo(f"{'  against':10} {_line(result.theirs)}")
        click.echo(
            f"{'  ratio':10} {result.ratio:9.2f} req/s, median of {result.rounds} rounds "
            f"({result.ratio_min:.2f} to {result.ratio_max:.2f})"
        )


def _line(figures: Figures) -> str:
    errors = f"  {figures.errors} errors: {figures.first_error}" if figures.errors else ""
    return (
        f"{figures.requests_per_s:9.2f} req/s {figures.texts_per_s:9.1f} texts/s "
        f"{figures.tokens_per_s:9.0f} tokens/s   p50 {figures.p50_ms:8.2f}  "
        f"p95 {figures.p95_ms:8.2f}  p99 {figures.p99_ms:8.2f} ms{errors}"
    )
