"""Report: every promise of reliability, what tried to break it, how often, and how often it did.

    python -m tests.bench.report [--size small|large] [--only ID]... [--seed N] [--out FILE]

Runs the proofs one after the other: minutes when small, hours when large. Prints a table in
Markdown, each row as soon as it is known, and exits with 1 if a promise was broken.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import click

from appliance import machine
from appliance.engine.llama import library
from tests.bench.promises import PROMISES, Promise
from tests.server import ROOT

SEEDS = ("KILL_SEED", "DAMAGE_SEED")
HEAD = "| promise | | proof | trials | violations | skipped | s |\n|---|---|---|---|---|---|---|"

Run = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs a command of Python's with some variables; returns its exit code."""


@dataclass(frozen=True)
class Row:
    """What became of one promise."""

    promise: Promise
    command: str
    trials: int
    violations: int
    skipped: int
    seconds: float

    def text(self) -> str:
        """Return it as a line of the table."""
        if self.promise.untried:
            return f"| {self.promise.id} | {self.promise.says} | {self.promise.untried} | - | - | - | - |"
        return (
            f"| {self.promise.id} | {self.promise.says} | `{self.command}` | {self.trials:,} | "
            f"{self.violations} | {self.skipped or ''} | {self.seconds:.0f} |"
        )


def prove(promise: Promise, *, large: bool, seed: int, run: Run) -> Row:
    """Try to break one promise and return how often that worked."""
    size = promise.large if large else promise.small
    began = time.monotonic()
    if promise.untried:
        return Row(promise, "", 0, 0, 0, 0.0)
    if promise.bench:
        module, *rest = (part.format(size) for part in promise.bench)
        code = run(["-m", f"tests.bench.{module}", *rest], {})
        command = " ".join(["python -m tests.bench." + module, *rest])
        return Row(promise, command, size or 1, int(code != 0), 0, time.monotonic() - began)
    variables = dict.fromkeys(SEEDS, str(seed))
    if promise.variable:
        variables[promise.variable] = str(size)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.xml"
        paths = [f"tests/{each}" for each in promise.tests]
        code = run(["-m", "pytest", "-q", f"--junit-xml={found}", *paths], variables)
        cases, broken, skipped = counted(found)
    prefix = f"{promise.variable}={size} " if promise.variable else ""
    return Row(
        promise,
        prefix + "pytest " + " ".join(paths),
        size if promise.variable else cases - skipped,
        # A run that could not even begin has no cases, and is no proof.
        max(broken, int(code != 0)),
        skipped,
        time.monotonic() - began,
    )


def counted(found: Path) -> tuple[int, int, int]:
    """Return the cases of a run of pytest, those that failed, and those that were skipped."""
    if not found.exists():
        return 0, 0, 0
    suites = ET.parse(found).getroot().iter("testsuite")
    sums = [0, 0, 0]
    for suite in suites:
        sums[0] += int(suite.get("tests", 0))
        sums[1] += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        sums[2] += int(suite.get("skipped", 0))
    return sums[0], sums[1], sums[2]


def chosen(only: Sequence[str]) -> Iterator[Promise]:
    """Yield the promises with one of these ids, or all of them."""
    for promise in PROMISES:
        if not only or set(only) & set(promise.id.split(", ")):
            yield promise


def preamble(*, large: bool, seed: int) -> str:
    """Return what the figures hold for."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    dirty = " with changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return (
        f"Size {'large' if large else 'small'}, seed {seed}, commit {commit}{dirty}, "
        f"{machine.processor().partition(':')[2].strip() or platform.processor()}, "
        f"{machine.cores()} cores, Python {platform.python_version()}, "
        f"llama-cpp-python {library.facts()['llama-cpp-python']}, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}."
    )


def _git(*arguments: str) -> str:
    end = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return end.stdout.strip()


def _run(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=sys.stderr,
        check=False,
    ).returncode


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=("small", "large"), default="small")
    parser.add_argument("--only", action="append", default=[], metavar="ID")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table here too")
    asked = parser.parse_args()
    large = asked.size == "large"
    lines = [preamble(large=large, seed=asked.seed), "", *HEAD.splitlines()]
    click.echo("\n".join(lines))
    broken = 0
    for promise in chosen(asked.only):
        row = prove(promise, large=large, seed=asked.seed, run=_run)
        broken += bool(row.violations)
        lines.append(row.text())
        click.echo(lines[-1])
        if asked.out is not None:
            asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
