"""What the pages cost: the server's time for each, beside the same models as JSON, and their weight.

    python -m tests.bench.pages [--models 200] [--rounds 50]

An appliance in this process over the fake engine, with a catalogue of so many models; times are the
server's own, from the request to the last byte of its answer, without a network. Then, where Chromium
is installed, how soon a started server's pages are painted over a slow link.
"""

import argparse
import asyncio
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import httpx2

from appliance.pages.navigation import PAGES
from tests.appliance import bench
from tests.bench.hostile_page import browser as installed
from tests.bench.load import own_server, percentile
from tests.pages.browser import SIZES, browsing

BROWSER = {"accept": "text/html", "accept-encoding": "gzip"}
SLOW = {
    "offline": False,
    "latency": 400,
    "downloadThroughput": 50_000,
    "uploadThroughput": 50_000,
}
"""Milliseconds and bytes a second: a phone with a bad connection."""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]"
ENTRY = """
[[model]]
id = "team-{n}/model-{n}"
aliases = ["model-{n}", "the-{n}th"]
task = "{task}"
description = "Model number {n} of a long list, with a sentence about what it is good at and what not."
license = "apache-2.0"
file = "model-{n}.gguf"
quantization = "Q8_0"
architecture = "bert"
params = 33_360_000
{dimensions}
max_input_tokens = 512
pooling = "{pooling}"
{scores}
price = {{ unit = "{unit}", realtime = 0.01, batch = 0.005 }}
"""


@dataclass(frozen=True)
class Row:
    """What one path took."""

    path: str
    ms: list[float]
    bytes_sent: int
    """Of the answer, in gzip where it is packed."""
    bytes_loaded: int = 0
    """Of the files that it loads."""


def catalogue(count: int) -> str:
    """Return a user's models.toml of so many models, every fourth of them for reranking."""
    entries = ["schema = 1\n"]
    for n in range(count):
        ranks = n % 4 == 0
        entries.append(
            ENTRY.format(
                n=n,
                task="rerank" if ranks else "embeddings",
                pooling="rank" if ranks else "cls",
                dimensions="" if ranks else "dimensions = 384",
                scores='scores = "sigmoid"' if ranks else "matryoshka = [256, 128]",
                unit="1k documents" if ranks else "1M tokens",
            )
        )
    return "".join(entries)


def write_catalogue(folder: Path, count: int) -> None:
    """Make a data directory with a catalogue of so many models."""
    folder.mkdir(mode=0o700)
    (folder / "models.toml").write_text(catalogue(count))


async def measure(folder: Path, *, models: int, rounds: int) -> list[Row]:
    """Return a row for each page and one for the list of models as JSON."""
    await asyncio.to_thread(write_catalogue, folder, models)
    async with bench(folder, preload=False) as on:
        rows = [await _row(on.client, "/v1/models", {}, rounds)]
        return rows + [await _row(on.client, each.path, BROWSER, rounds) for each in PAGES]


async def _row(client: httpx2.AsyncClient, path: str, headers: dict[str, str], rounds: int) -> Row:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        sent, text = await _read(client, path, headers)
        times.append(1000 * (time.perf_counter() - began))
    files = set(re.findall(r'"(/static/[^"]+)"', text)) if headers else set()
    loaded = [(await _read(client, each, headers))[0] for each in files]
    return Row(path, times, sent, sum(loaded))


async def _read(client: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Return how many bytes were sent, and what they say."""
    answer = (await client.get(path, headers=headers)).raise_for_status()
    return int(answer.headers["content-length"]), answer.text


def table(rows: list[Row]) -> str:
    """Return the rows as text; each ratio is to the first one's median."""
    base = statistics.median(rows[0].ms)
    lines = [f"{'path':14}{'p50 ms':>9}{'p95 ms':>9}{'of JSON':>9}{'sent kB':>9}{'files kB':>10}"]
    for row in rows:
        middle = statistics.median(row.ms)
        lines.append(
            f"{row.path:14}{middle:9.1f}{percentile(row.ms, 0.95):9.1f}{middle / base:9.2f}"
            f"{row.bytes_sent / 1000:9.1f}{row.bytes_loaded / 1000:10.1f}"
        )
    return "\n".join(lines)


def paints(program: str, url: str) -> list[str]:
    """Return a line for each page: its first paint over a slow link, the first time and the second."""
    lines = []
    with browsing(program) as browser:
        for path in (each.path for each in PAGES):
            context = browser.new_context(viewport=SIZES["phone"])
            found = []
            for _ in range(2):
                page = context.new_page()
                session = context.new_cdp_session(page)
                session.send("Network.enable")
                session.send("Network.emulateNetworkConditions", SLOW)
                page.goto(url + path, timeout=120_000)
                page.wait_for_function(PAINTED)
                ms = page.evaluate(f"{PAINTED}.startTime")
                if path == "/docs":
                    page.wait_for_selector(".opblock", timeout=120_000)
                found.append(
                    f"{ms:.0f} ms, whole after {page.evaluate('performance.now()'):.0f} ms"
                )
                page.close()
            context.close()
            lines.append(f"{path:14}first paint {found[0]}; then {found[1]}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=50)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        rows = asyncio.run(measure(folder, models=asked.models, rounds=asked.rounds))
    click.echo(table(rows))
    if (program := installed()) is not None:
        with own_server("--fake") as server:
            click.echo("\n".join(["over 400 kbit/s with 400 ms:", *paints(program, server.url)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
