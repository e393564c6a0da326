"""Main: the command line `gigarouter`.

Owns the names of its commands and their flags.
"""

import gc
import io
import logging
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import click

from appliance import settings
from appliance.cli.archive import export, import_
from appliance.cli.audit import audit
from appliance.cli.books import backup, prove, restore
from appliance.cli.doctor import doctor
from appliance.cli.embed import embed
from appliance.cli.engine import engine
from appliance.cli.keys import keys
from appliance.cli.models import models
from appliance.cli.options import Commands, DirectoryPath, everywhere
from appliance.cli.service import service
from appliance.cli.tls import tls
from appliance.cli.usage import usage
from appliance.hardening import harden
from appliance.store.datadir import DataDir

TERMINAL_AS_IT_WAS = "\x1b[?1049l\x1b[?25h\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[0m\r\n"
"""Escape sequences: the ordinary screen, a cursor, no mouse, no bracketed paste, no colour."""


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(package_name="gigarouter", message="gigarouter %(version)s")
@click.option("--data-dir", type=DirectoryPath(), help="Of the console.")
@click.pass_context
def cli(ctx: click.Context, data_dir: Path | None) -> None:
    """Serve embedding and rerank models on this machine, with keys and prepaid credits."""
    if ctx.invoked_subcommand is not None:
        if data_dir is not None:
            raise click.UsageError(f"--data-dir belongs after {ctx.invoked_subcommand}")
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        ctx.invoke(console, data_dir=data_dir)
    else:
        click.echo(ctx.get_help())


@cli.command()
@click.option("--host", help="Address to bind.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to bind.  [default: 8642]")
@click.option("--log-format", type=click.Choice(settings.LOG_FORMATS))
@click.option("--tls-cert", help="PEM certificate chain.")
@click.option("--tls-key", help="Its PKCS#8 private key.")
@click.option(
    "--lan", is_flag=True, default=None, help="Let other machines reach it; --host alone does not."
)
@click.option(
    "--insecure-http",
    is_flag=True,
    default=None,
    help="Let them do so without TLS: keys and texts travel readable.",
)
@click.option("--fake", is_flag=True, default=None, help="Made-up vectors: no model is computed.")
@click.option("--no-supervise", is_flag=True, help="One process, which nothing starts again.")
@click.option("--supervised", hidden=True, help="What the supervisor hands over.")
@everywhere
def serve(
    directory: DataDir,
    *,
    as_json: bool,
    host: str | None,
    port: int | None,
    log_format: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    lan: bool | None,
    insecure_http: bool | None,
    fake: bool | None,
    no_supervise: bool,
    supervised: str | None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C; one that dies is started again."""
    del as_json  # this command prints no result
    flags = {
        "host": host,
        "port": port,
        "log_format": log_format,
        "tls.cert": tls_cert,
        "tls.key": tls_key,
        "lan": lan,
        "insecure_http": insecure_http,
        "fake_engine": fake,
        "supervise": False if no_supervise else None,
    }
    chosen = settings.load(directory.path, flags)
    if supervised is None and chosen.supervise:
        # Late, like the other one: it opens what only a server needs.
        from appliance.start import supervise  # noqa: PLC0415

        sys.exit(supervise(directory, chosen, _server_arguments(directory, flags)))
    # Imports make no garbage; looking for some takes a tenth of their time. `serve` begins again.
    gc.disable()
    # Imported late: the server's libraries take half a second that no other command needs.
    from appliance.serve import serve as run  # noqa: PLC0415
    from appliance.supervised import Supervised  # noqa: PLC0415

    inherited = None if supervised is None else Supervised.from_words(supervised)
    sys.exit(run(directory, chosen, inherited))


VALUES = {"log_format": "--log-format", "tls.cert": "--tls-cert", "tls.key": "--tls-key"}
SWITCHES = {"lan": "--lan", "insecure_http": "--insecure-http", "fake_engine": "--fake"}
"""Flags of `serve` by setting."""


def _server_arguments(directory: DataDir, flags: Mapping[str, object]) -> list[str]:
    """Return the flags that a supervised server is started with, again and again."""
    words = [word for name, flag in VALUES.items() if flags[name] for word in (flag, flags[name])]
    switches = [flag for name, flag in SWITCHES.items() if flags[name]]
    return ["--data-dir", str(directory.path), *map(str, words), *switches]


@cli.command()
@click.option("--url", help="A server elsewhere.  [default: the one of this data directory]")
@click.option("--token-file", help="A file with its admin token, with --url.")
@click.option("--web", is_flag=True, help="In a browser of this machine; needs gigarouter[web].")
@click.option("--web-port", type=int, help="Where.  [default: 8643]")
@everywhere
def console(
    directory: DataDir,
    *,
    as_json: bool,
    url: str | None,
    token_file: str | None,
    web: bool,
    web_port: int | None,
) -> None:
    """Show the console: what the server does, models, keys, the network. The default command."""
    del as_json  # this command prints no result
    flags = {"url": url, "token-file": token_file, "web-port": web_port}
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    given += ["--web"] * web
    # A process of its own: if the console crashes or is killed, this one restores the terminal.
    # -P: no module of the current folder is run in the place of one of ours.
    program = [sys.executable, "-P", "-m", "tui", "--data-dir", str(directory.path), *given]
    code = _wait_for(subprocess.Popen(program, env=settings.environment()))  # noqa: S603 - our own
    if code < 0:
        sys.stdout.write(TERMINAL_AS_IT_WAS)
        sys.stdout.flush()
        subprocess.call(["stty", "sane"])  # noqa: S607 - wherever the system keeps it
    sys.exit(abs(code))


def _wait_for(child: "subprocess.Popen[bytes]") -> int:
    """Return the exit code of the console, which gets the signals that end this process."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: child.send_signal(received))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child by itself
    return child.wait()


cli.add_command(keys)
cli.add_command(models)
cli.add_command(usage)
cli.add_command(backup)
cli.add_command(restore)
cli.add_command(export)
cli.add_command(import_)
cli.add_command(prove)
cli.add_command(doctor)
cli.add_command(embed)
cli.add_command(engine)
cli.add_command(audit)
cli.add_command(service)
cli.add_command(tls)


@cli.command()
@click.option("--url", help="Server to measure.  [default: the one of this data directory]")
@click.option("--key", help="Its key, with --url: '-' reads a line.  [env: GIGAROUTER_BENCH_KEY]")
@click.option("--path", default="/v1/embeddings", help="Its embeddings path.")
@click.option("--rerank-path", default="/v1/rerank", help="Its rerank path.")
@click.option("--against", help="A peer: both are measured in turn, and ratios are printed.")
@click.option("--against-key", help="The peer's; '-' too.  [env: GIGAROUTER_BENCH_AGAINST_KEY]")
@click.option("--against-path", default="/v1/embeddings")
@click.option("--against-rerank-path", default="/v1/rerank")
@click.option("--against-model", default="", help="What the peer calls the model.")
@click.option("--workloads", help="Names, separated by commas.  [default: all]")
@click.option("--seconds", default=5.0, help="Of each run.", show_default=True)
@click.option("--rounds", default=5, help="Runs of each workload.", show_default=True)
@click.option("--rest", default=0.0, help="Seconds before each run; 3 with --against.")
@click.option("--check", type=click.Path(path_type=Path), help="An earlier --json of this machine.")
@click.option("--tolerance", default=0.1, help="Of --check: how much slower.", show_default=True)
@click.option("--engine", is_flag=True, help="The raw engine in this process: the ceiling.")
@everywhere
def bench(
    directory: DataDir,
    *,
    as_json: bool,
    url: str | None,
    key: str | None,
    path: str,
    rerank_path: str,
    against: str | None,
    against_key: str | None,
    against_path: str,
    against_rerank_path: str,
    against_model: str,
    workloads: str | None,
    seconds: float,
    rounds: int,
    rest: float,
    check: Path | None,
    tolerance: float,
    engine: bool,
) -> None:
    """Measure a server with fixed, seeded loads, alone or in turn with a peer."""
    settings.prepare_native_library()
    from appliance.bench.comparison import Side  # noqa: PLC0415
    from appliance.bench.driver import Target  # noqa: PLC0415
    from appliance.bench.report import read as read_report  # noqa: PLC0415
    from appliance.cli import bench as command  # noqa: PLC0415

    loads = command.chosen(workloads)
    if engine:
        command.run_ceiling(directory, loads, seconds=seconds, as_json=as_json)
        return
    own_key = command.secret("--key", key) if url else ""
    theirs = against and Side(
        Target(against, against_path, command.secret("--against-key", against_key)),
        against_rerank_path,
        against_model or command.EMBED,
        against_model or command.RERANK,
    )
    mine = (
        nullcontext(Side(Target(url, path, own_key), rerank_path, command.EMBED, command.RERANK))
        if url
        else command.own_side(directory, path=path, rerank_path=rerank_path)
    )
    # Before anything is measured: a wrong file costs no minutes.
    earlier = None if check is None else read_report(check)
    rest_s = rest or (command.REST_S if theirs else 0.0)
    with mine as ours:
        found = command.run(
            ours,
            theirs or None,
            loads,
            seconds=seconds,
            rounds=rounds,
            rest_s=rest_s,
            as_json=as_json,
        )
    if earlier is not None:
        command.check(earlier, found, tolerance=tolerance)


def main() -> None:
    """Run the command line and leave with its exit code."""
    harden()
    settings.keep_numpy_single_threaded()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is escaped; it does not end the command.
            stream.reconfigure(errors="backslashreplace")
    # A command says itself what went wrong; only a server keeps a log.
    logging.getLogger("gigarouter").addHandler(logging.NullHandler())
    cli(prog_name="gigarouter")
