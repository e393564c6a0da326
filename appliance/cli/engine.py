"""Engine: `gigarouter engine`: which engines there are, and which one this environment has.

A server that runs goes on with the one that it has loaded, until it is started again.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import click

from appliance import settings
from appliance.cli import printing
from appliance.cli.options import as_document
from appliance.native import build, pip, staging
from appliance.native.distribution import NAME, binding_version
from appliance.native.engine_cache import remove_all
from appliance.native.pip import BuildFailed
from appliance.native.staging import Checked
from appliance.native.variants import called, current, distributions, variants
from appliance.native.wheels import installed, requirements

INSTALLED = "installed"
BEFORE = "before"
NATIVE = "native"
RESTART = "restart the server to use it"
BENCH_S = 600
"""Seconds that one run of `engine bench` may take, with the measuring of its tuning."""


@click.group()
def engine() -> None:
    """Install, compare and show the compiled engine (llama.cpp)."""


@engine.command("list")
@as_document
def list_engines(*, as_json: bool) -> None:
    """List the engines for this kind of machine, the best first, and why one is of no use here."""
    found = variants(settings.environment())
    if as_json:
        printing.document(found)
        return
    rows = [
        (each.name, "installed" if each.is_installed else each.reason or "usable", each.about)
        for each in found
    ]
    printing.table(("NAME", "STATE", "WHAT"), rows)


@engine.command("install")
@click.argument("name", metavar="[NAME]", default="")
@click.option(
    "--from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take the wheels from this folder, and none from pip's index.",
)
@click.option("--force", is_flag=True, help="Compile or install again what is there already.")
def install_engine(*, name: str, folder: Path | None, force: bool) -> None:
    """Install an engine: a name of `engine list`, or the best one that is prebuilt.

    It computes known vectors before it takes the place of the one that is installed, and once more
    there; where they are wrong, everything is as before. `native` is compiled here; CMAKE_ARGS is
    respected.
    """
    environment = settings.environment()
    wanted = called(name, environment) if name else ""
    if name and not wanted:
        known = ", ".join(variant.name for variant in variants(environment))
        raise BuildFailed(f"no engine {name!r} for this machine; there are: {known}")
    for choice in [wanted] if wanted else _best(environment):
        try:
            checked = _install(choice, folder, environment, force=force)
        except BuildFailed as failure:
            if wanted or choice == NATIVE:
                raise
            _say(f"{choice}: {failure}")
            continue
        click.echo(_done(choice, checked) if checked else "up to date")
        return


@engine.command("rollback")
def rollback() -> None:
    """Go back to the engine that was installed before this one."""
    engine = staging.before()
    if not engine:
        raise BuildFailed("no engine was replaced in this environment: there is none to go back to")
    with tempfile.TemporaryDirectory() as temporary:
        # Copies: where they lie, the engine that is left now is put.
        copies = [Path(shutil.copy(wheel, temporary)) for wheel in engine]
        checked = staging.switch(copies, _say, settings.environment())
    build.forget()
    click.echo(_done(current(), checked))


@engine.command("show")
@as_document
def show_engine(*, as_json: bool) -> None:
    """Show which engine is installed and what it can do."""
    settings.prepare_native_library()
    from appliance.engine.llama import library  # noqa: PLC0415 - loads native code

    facts = {"engine": current() or "llama-cpp-python's own", **library.facts()}
    printing.document(facts) if as_json else printing.pairs(facts)


@engine.command("bench")
@click.argument("names", nargs=-1)
@click.option("--workloads", default="short-64,b32x64", show_default=True)
@click.option("--seconds", default=3.0, help="Of each run.", show_default=True)
@click.option("--rounds", default=3, help="Runs of each engine, in turn.", show_default=True)
def bench_engines(*, names: Sequence[str], workloads: str, seconds: float, rounds: int) -> None:
    """Compare engines without a server, in turn: `installed`, `before`, `native`, or a wheel.

    Ratios are to the first one named.
    """
    environment = settings.environment()
    with ExitStack() as stack, tempfile.TemporaryDirectory() as data:
        sides = {
            name: stack.enter_context(_side(name, environment)) for name in names or (INSTALLED,)
        }
        rates: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
        options = ["--data-dir", data, "--workloads", workloads, "--seconds", str(seconds)]
        for _ in range(rounds):
            for name, folder in sides.items():
                for workload, rate in _measured(folder, options, environment).items():
                    rates[name].setdefault(workload, []).append(rate)
    first = next(iter(rates.values()))
    rows = [
        (name, workload, f"{median(found):.0f}", f"{median(found) / median(first[workload]):.2f}")
        for name, loads in rates.items()
        for workload, found in loads.items()
    ]
    printing.table(("ENGINE", "WORKLOAD", "TOKENS/S", "RATIO"), rows)


@engine.command("clean")
def clean() -> None:
    """Remove the engines that were compiled before; the one that is installed stays."""
    freed = remove_all(build.cache(settings.environment()))
    click.echo(f"{freed / 1e6:.0f} MB were freed")


def _say(text: str) -> None:
    click.echo(f"gigarouter: {text}", err=True)


def _done(name: str, checked: Checked) -> str:
    kernels = checked.facts["kernels"]
    return f"{name} is installed ({kernels} kernels, cosine {checked.cosine:.5f}); {RESTART}"


def _best(environment: Mapping[str, str]) -> list[str]:
    """Return what is tried when no name is given: what is prebuilt, then compiling."""
    usable = [variant.name for variant in variants(environment) if not variant.reason]
    return sorted(usable, key=lambda name: name == NATIVE)


def _install(
    name: str, folder: Path | None, environment: Mapping[str, str], *, force: bool
) -> Checked | None:
    """Put an engine in place; return what it computed, None where it is there already."""
    if name == NATIVE:
        if not force and build.is_installed(environment):
            return None
        with build.built(_say, environment=environment, force=force) as wheel:
            checked = staging.switch([wheel], _say, environment)
        build.note(environment)
        return checked
    there = installed(NAME)
    if not force and name == current() and there and there.version.startswith(binding_version()):
        return None
    with tempfile.TemporaryDirectory() as temporary:
        engine = _downloaded(name, folder, Path(temporary), environment)
        checked = staging.switch(engine, _say, environment)
    build.forget()
    return checked


def _downloaded(
    name: str, folder: Path | None, into: Path, environment: Mapping[str, str]
) -> list[Path]:
    """Return the wheels of a prebuilt engine, and of what its graphics library needs."""
    options = ["--only-binary", ":all:", "--dest", str(into)]
    if folder is not None:
        options += ["--no-index", "--find-links", str(folder)]
    wanted = [f"{each}=={binding_version()}.*" for each in distributions(name)]
    pip.run(["download", "--no-deps", *options, *wanted], _say, environment)
    added = into.glob(f"{NAME.replace('-', '_')}_*.whl")
    needs = [need for wheel in added for need in requirements(wheel) if not need.startswith(NAME)]
    if needs:
        pip.run(["download", *options, *needs], _say, environment)
    return sorted(into.glob("*.whl"))


@contextmanager
def _side(name: str, environment: Mapping[str, str]) -> Iterator[Path | None]:
    """Yield the folder with an engine to compare; None: what is installed."""
    if name == INSTALLED:
        yield None
        return
    with ExitStack() as stack:
        if name == NATIVE:
            engine = [stack.enter_context(build.built(_say, environment=environment))]
        else:
            engine = staging.before() if name == BEFORE else [Path(name)]
        if not engine or not all(wheel.is_file() for wheel in engine):
            known = f"{INSTALLED}, {BEFORE}, {NATIVE} or a wheel's path"
            raise BuildFailed(f"no engine {name!r} is here; there are: {known}")
        yield stack.enter_context(staging.staged(engine, _say, environment))


def _measured(
    folder: Path | None, options: Sequence[str], environment: Mapping[str, str]
) -> dict[str, float]:
    """Return an engine's tokens a second by workload, measured in a process of its own."""
    command = [sys.executable, "-P", "-m", "appliance", "bench", "--engine", "--json", *options]
    ran = subprocess.run(  # noqa: S603 - our own interpreter and arguments
        command,
        env=staging.with_path(environment, folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=BENCH_S,
    )
    if ran.returncode != 0:
        raise BuildFailed(f"the engine cannot be measured:\n{ran.stderr[-2000:]}")
    return {each["workload"]: each["tokens_per_s"] for each in json.loads(ran.stdout)}
