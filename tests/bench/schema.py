"""Schema: whatever is sent as our OpenAPI document allows or forbids, the answer is as it says.

    python -m tests.bench.schema [--seconds 600] [--examples 100] [--seed N] [--path REGEX]... [--fake]

Schemathesis reads the document of a started server and calls every operation in all of its phases:
the document's own examples, the bounds of each field, made-up requests, and operations one after
another. Each answer is held to every check but those of `schema_checks.py`. The last two phases go
on until about so many seconds have passed. Proves: no failure in any operation.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tests.bench.load import own_server
from tests.bench.schema_checks import EXCLUDED
from tests.server import EMBED, RERANK, ROOT, Server

SEED = 20_261_127
PHASES = ("examples", "coverage", "fuzzing", "stateful")
GRACE_S = 120
"""How long it may take to end after its time."""
HOOKS = "tests.bench.schema_hooks"
BEHIND_A_PROXY = {"GIGAROUTER_TRUSTED_PROXIES": "127.0.0.1"}
"""For `schema_hooks.py`."""
CONFIGURATION = f"""\
[generation]
database = "none"

[parameters]  # made-up names would all be answered 404
"path.model" = "{EMBED}"
"path.deployment" = "{EMBED}"

[[operations]]
include-path = "/tei/{{model}}/rerank"
parameters = {{ "path.model" = "{RERANK}" }}

[[operations]]  # it ends the credential that it is called with
include-path = "/account/rotate"
headers = {{ Authorization = "Bearer ${{GIGAROUTER_ROTATED}}" }}
"""


@dataclass(frozen=True)
class Found:
    """What a run found: its phases, Schemathesis' exit code and report, and what it wrote."""

    phases: Sequence[str]
    code: int
    report: dict[str, Any]
    told: str

    @property
    def holds(self) -> bool:
        """Whether every operation was called in every phase, and no check failed."""
        operations, phases = self.report["operations"], self.report["phases"]
        return (
            self.code == 0
            and operations["tested"] == operations["selected"] > 0
            and all(phases[name]["status"] == "success" for name in self.phases)
            and not self.report["failures"]
            and not self.report["errors"]
        )


def phases(asked: argparse.Namespace) -> Sequence[str]:
    """Return the phases of a run: operations that were picked need not lead to one another."""
    return PHASES[:-1] if asked.path else PHASES


def options(asked: argparse.Namespace) -> list[str]:
    """Return what Schemathesis is asked to do, but for where."""
    return [
        f"--exclude-checks={','.join(each.check for each in EXCLUDED)}",
        f"--max-time={asked.seconds}",
        f"--max-examples={asked.examples}",
        f"--seed={asked.seed}",
        f"--phases={','.join(phases(asked))}",
        # One at a time: Python 3.11 cannot parse source in two threads at once, as it does there.
        "--workers=1",
        # Paths and headers are narrow: much that is made up for them is thrown away.
        "--suppress-health-check=all",
        *("--continue-on-failure", "--mode=all", "--warnings=off", "--no-color"),
        *(f"--include-path-regex={text}" for text in asked.path),
    ]


def run(server: Server, asked: argparse.Namespace) -> Found:
    """Run Schemathesis over a server that trusts this machine as its proxy."""
    key, rotated = (str(server.mint(name)["key"]) for name in ("schema", "rotated"))
    with tempfile.TemporaryDirectory(prefix="gigarouter-schema-") as name:
        configuration, report = Path(name) / "schemathesis.toml", Path(name) / "report.json"
        configuration.write_text(CONFIGURATION)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", f"--config-file={configuration}"),
                *("run", f"{server.url}/v1/openapi.json", "-H", f"Authorization: Bearer {key}"),
                *("--report=json", f"--report-json-path={report}", *options(asked)),
            ],
            cwd=name,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": HOOKS,
                "PYTHONPATH": str(ROOT),
                "GIGAROUTER_ROTATED": rotated,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=asked.seconds + GRACE_S,
            check=False,
        )
        assert report.exists(), done.stdout[-2000:]
        told = json.loads(report.read_text())
        return Found(phases(asked), done.returncode, told, done.stdout)


def table(found: Found) -> str:
    """Return what was called and what failed, a line each."""
    report = found.report
    operations, cases = report["operations"], report["test_cases"]
    errors = sum(each["count"] for each in report["errors"])
    spent = f"{cases['generated']:,} requests in {report['running_time']:.0f} s"
    lines = [
        f"{operations['tested']} of {operations['selected']} operations, {spent} (seed {report['seed']})",
        f"{cases['unique_failures']} failures, {errors} errors",
        *(f"{name}: {report['phases'][name]['status']}" for name in found.phases),
        *(f"{each['title']}: {', '.join(each['operations'])}" for each in report["failures"]),
        *(f"not checked: {each.check}: {each.reason}" for each in EXCLUDED),
    ]
    return "\n".join(lines)


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="about how long it may take")
    parser.add_argument("--examples", type=int, default=100, help="made up for each operation")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--path", action="append", default=[], help="operations that match this")
    parser.add_argument("--fake", action="store_true", help="without the engine")
    return parser.parse_args(words)


def main() -> int:
    """Run from the command line."""
    asked = parsed()
    flags = ("--fake",) if asked.fake else ()
    with own_server(*flags, calibrate=False, env=BEHIND_A_PROXY) as server:
        found = run(server, asked)
    if not found.holds:
        click.echo(found.told)
    click.echo(table(found))
    return 0 if found.holds else 1


if __name__ == "__main__":
    sys.exit(main())
