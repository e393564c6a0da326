"""Every client's own package, as its users have it, against a really started server.

    python -m tests.clients [--only NAME …] [--folder DIR] [--markdown]

DIR gets the clients' environments (the first time: some minutes and a gigabyte). Each script in
`python/` and `node/` does what a user does and compares with the plain answer. `--markdown` prints the
README's table. promptfoo, which is large, is tried only when it is named. The exit code is 1 if anything fails that KNOWN does not name.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import click
import platformdirs

from tests.clients import environments
from tests.clients.table import ALIASES, CLIENTS, KNOWN, Client
from tests.server import RERANK, Server

SCRIPT_SECONDS = 300


@dataclass(frozen=True)
class Step:
    name: str
    why: str | None


@dataclass(frozen=True)
class Row:
    """What became of one client."""

    client: Client
    version: str
    steps: list[Step]

    @property
    def failed(self) -> list[Step]:
        return [each for each in self.steps if each.why is not None]

    @property
    def unexpected(self) -> list[Step]:
        return [each for each in self.failed if f"{self.client.name}: {each.name}" not in KNOWN]


def environment_of(server: Server, key: str, folder: Path) -> dict[str, str]:
    """What a script reads; nothing of this machine's own keys and servers."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    return {
        **kept,
        "BASE": server.url,
        "KEY": key,
        "MODEL": "all-minilm-l6-v2",
        "RERANK_MODEL": RERANK,
        "PYTHONDONTWRITEBYTECODE": "1",
        "DO_NOT_TRACK": "1",
        "TIKTOKEN_CACHE_DIR": str(environments.word_splitter(folder)),
    }


def tried(server: Server, key: str, folder: Path, clients: list[Client]) -> list[Row]:
    """Run one script, and return the rows that it fills."""
    one = clients[0]
    environments.make(folder, one.environment)
    try:
        done = subprocess.run(
            environments.command(folder, one.environment, one.script),
            capture_output=True,
            text=True,
            timeout=SCRIPT_SECONDS,
            check=False,
            env=environment_of(server, key, folder),
        )
        said, end = done.stdout, done.stderr.strip().splitlines()[-1:]
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        said = output.decode() if isinstance(output, bytes) else output
        end = [f"took more than {SCRIPT_SECONDS} s"]
    steps: dict[str, list[Step]] = defaultdict(list)
    for line in said.splitlines():
        if line.startswith('{"client"'):
            found = json.loads(line)
            steps[found["client"]].append(Step(found["step"], found["why"]))
    unlisted = [
        f"{name}: {each.why}"
        for name, several in steps.items()
        for each in several
        if name not in {client.name for client in clients} and each.why
    ]
    nothing = Step("runs", "; ".join(unlisted or end) or "it said nothing")
    return [
        Row(
            each,
            environments.version(folder, each.environment, each.package),
            [step for step in steps.get(each.name, []) if step.name != "imports" or step.why]
            or [nothing],
        )
        for each in clients
    ]


def show(row: Row) -> None:
    verdict = "ok" if not row.failed else "known" if not row.unexpected else "FAILS"
    passed = len(row.steps) - len(row.failed)
    click.echo(f"{verdict:5}  {row.client.name}  {row.version}  {passed}/{len(row.steps)}")
    for each in row.failed:
        reason = KNOWN.get(f"{row.client.name}: {each.name}")
        click.echo(f"         {each.name}: {reason or each.why}")


def markdown(rows: list[Row]) -> str:
    """Write the README's table."""
    lines = ["| client | version | what to paste | steps that hold |", "|---|---|---|---|"]
    for row in rows:
        reasons = dict.fromkeys(
            KNOWN.get(f"{row.client.name}: {each.name}", each.name) for each in row.failed
        )
        holds = f"{len(row.steps) - len(row.failed)} of {len(row.steps)}"
        notes = "".join(f"; {each}" for each in [row.client.note, *reasons] if each)
        paste = row.client.configuration.replace("|", "\\|")
        lines.append(f"| {row.client.name} | {row.version} | `{paste}` | {holds}{notes} |")
    return "\n".join(lines)


def wanted(names: list[str]) -> list[list[Client]]:
    """Return the chosen clients, those of one script together."""
    chosen = [
        each
        for each in CLIENTS
        if any(name in each.name for name in names) or (not names and not each.is_large)
    ]
    if not chosen:
        sys.exit(f"there is no such client; there are: {', '.join(each.name for each in CLIENTS)}")
    scripts: dict[str, list[Client]] = defaultdict(list)
    for each in chosen:
        scripts[each.script].append(each)
    return list(scripts.values())


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    arguments.add_argument("--only", nargs="+", default=[], metavar="NAME")
    default = platformdirs.user_cache_path("gigarouter") / "clients"
    arguments.add_argument("--folder", type=Path, default=default, metavar="DIR")
    arguments.add_argument("--markdown", action="store_true")
    chosen = arguments.parse_args()
    folder = chosen.folder.resolve()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as kept:
        # LangChain's default sends ids of a vocabulary that the operator puts there.
        words = str(environments.word_splitter(folder))
        server = Server(Path(kept) / "data").start(env={"TIKTOKEN_CACHE_DIR": words})
        try:
            with server.admin() as admin:
                for model, names in ALIASES.items():
                    order = {"id": model, "aliases": names}
                    admin.post("/models/alias", json=order).raise_for_status()
            key = str(server.mint("clients")["key"])
            for clients in wanted(chosen.only):
                for row in tried(server, key, folder, clients):
                    rows.append(row)
                    show(row)
        finally:
            server.stop()
    if chosen.markdown:
        click.echo(f"\n{markdown(rows)}")
    for row in rows:
        for each in row.steps:
            if each.why is None and f"{row.client.name}: {each.name}" in KNOWN:
                click.echo(f"KNOWN names a step that holds: {row.client.name}: {each.name}")
    failing = [row.client.name for row in rows if row.unexpected]
    click.echo(f"\n{len(rows) - len(failing)} of {len(rows)} clients are ok")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
