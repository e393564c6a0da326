"""Soak: under a mixed load for a long time the server's memory does not grow.

    python -m tests.bench.soak [--minutes 30] [--connections 6]

Clients with several keys embed and rerank requests of all sizes, make mistakes, run out of credit
and hang up in the middle; one action in twenty is a new client. The server's resident memory is
read every ten seconds. The first fifth is warm-up; a line is fitted to the rest. Proves: over the
rest it rises by less than 2 % or less than 8 MB, and no answer was one that its request does not
deserve.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx2
import numpy as np

from tests.bench.load import client_of, own_server, text
from tests.server import EMBED, RERANK, Server

try:
    import psutil  # type: ignore[import-not-found, import-untyped, unused-ignore]  # optional
except ImportError:
    psutil = None

SEED = 20_261_125
SAMPLE_S = 10.0
WARM_UP_SHARE = 0.2
GROWTH_SHARE_MAX = 0.02
GROWTH_BYTES_MAX = 8_000_000
MB = 1_000_000
KEYS: Mapping[str, Mapping[str, object]] = {
    "unlimited": {"credit": "unlimited"},
    "prepaid": {"credit": "1000"},
    "poor": {"credit": "0.00001"},
    "slow": {"credit": "unlimited", "rpm": 20},
}
"""Keys by name, as they are minted; each client keeps one."""
SHARES = {"embed": 60, "rerank": 20, "mistake": 10, "hang up": 10}
"""Actions, and how many of a hundred are such."""
NEW_CLIENT = 0.05
MISTAKES: tuple[tuple[int, str, Any], ...] = (
    (400, "/v1/embeddings", {"model": EMBED}),
    (400, "/v1/embeddings", {"model": EMBED, "input": [1, 2, 3]}),
    (400, "/v1/embeddings", {"model": EMBED, "input": "x", "dimensions": 7}),
    (400, "/v1/embeddings", {"model": EMBED, "input": "many " * 900, "truncate": False}),
    (400, "/v1/embeddings", {"model": RERANK, "input": "x"}),
    (400, "/v1/rerank", {"model": RERANK, "query": "q", "documents": []}),
    (404, "/v1/embeddings", {"model": "nobody/nothing", "input": "x"}),
    (404, "/v1/nowhere", {}),
)
"""What each deserves, its path and its body."""


# -- memory ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trend:
    """A line through samples of memory after the warm-up; bytes."""

    at_start: float
    growth: float
    """From the end of the warm-up to the end."""

    @property
    def holds(self) -> bool:
        return self.growth < max(GROWTH_BYTES_MAX, GROWTH_SHARE_MAX * self.at_start)


def trend(samples: Sequence[tuple[float, float]]) -> Trend:
    """Fit a line to (seconds, bytes) by least squares, without the first fifth of the time."""
    begins = samples[0][0] + WARM_UP_SHARE * (samples[-1][0] - samples[0][0])
    kept = np.array([each for each in samples if each[0] >= begins], np.float64)
    seconds, memory = kept[:, 0] - kept[0, 0], kept[:, 1]
    slope, at_start = np.polyfit(seconds, memory, 1) if len(kept) > 1 else (0.0, memory[0])
    return Trend(float(at_start), float(slope * seconds[-1]))


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has in use."""
    if psutil is not None:
        return int(psutil.Process(pid).memory_info().rss)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


# -- load -----------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What happened."""

    samples: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the beginning, and bytes."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By action and status; 0: we hung up."""
    undeserved: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Action:
    """A request, what it may be answered with, and when we give up on it."""

    name: str
    path: str
    body: Any
    deserves: frozenset[int]
    patience_s: float | None = None


def action(chance: random.Random) -> Action:
    """Draw the next thing that a client does."""
    name = chance.choices(list(SHARES), list(SHARES.values()))[0]
    # 402 and 429 belong to keys; whoever hangs up may hear the answer first.
    paid = frozenset({200, 402, 429})
    if name == "mistake":
        status, path, body = chance.choice(MISTAKES)
        # A long text is not tokenized, and so not found too long, for a key without credit.
        early = {402, 429} if "truncate" in body else {429}
        return Action(name, path, body, frozenset({status, *early}))
    if name == "rerank":
        documents = [text(chance, 5, 80) for _ in range(chance.choice((1, 5, 20, 100)))]
        body = {"model": RERANK, "query": text(chance, 3, 12), "documents": documents}
        return Action(name, "/v1/rerank", body, paid)
    words_max = chance.choice((12, 12, 60, 400))
    texts = [text(chance, 1, words_max) for _ in range(chance.choice((1, 1, 4, 32, 200)))]
    encoding = chance.choice(("float", "base64"))
    body = {"model": EMBED, "input": texts, "encoding_format": encoding}
    patience_s = chance.uniform(0.001, 0.3) if name == "hang up" else None
    return Action(name, "/v1/embeddings", body, paid, patience_s)


async def act(client: httpx2.AsyncClient, chosen: Action, seen: Seen) -> None:
    """Do it and note what came of it."""
    try:
        async with asyncio.timeout(chosen.patience_s):
            answer = await client.post(chosen.path, json=chosen.body)
            status = answer.status_code
    except TimeoutError:
        status = 0
    else:
        if status not in chosen.deserves:
            seen.undeserved.append(f"{chosen.name} {chosen.path}: {status} {answer.text[:200]}")
    seen.answers[chosen.name, status] += 1


async def load(
    server: Server, *, seconds: float, connections: int, sample_s: float = SAMPLE_S
) -> Seen:
    """Load a server for some time and watch its memory."""
    keys = [str(server.mint(name, **order)["key"]) for name, order in KEYS.items()]
    assert server.process is not None
    pid, seen, began = server.process.pid, Seen(), time.monotonic()

    async def person(number: int) -> None:
        chance = random.Random(f"{SEED} {number}")
        while time.monotonic() - began < seconds:
            async with client_of(server.url, keys[number % len(keys)]) as client:
                while time.monotonic() - began < seconds:
                    await act(client, action(chance), seen)
                    # A refused client that asks again at once would be most of the load.
                    await asyncio.sleep(chance.uniform(0, 0.05))
                    if chance.random() < NEW_CLIENT:
                        break

    async def watch() -> None:
        while True:
            seen.samples.append((time.monotonic() - began, resident_bytes(pid)))
            await asyncio.sleep(sample_s)

    async with client_of(server.url, keys[0]) as client:
        warm = {"model": EMBED, "input": "warm"}
        answer = await client.post("/v1/embeddings", json=warm, headers={"prefer": "wait=60"})
        assert answer.status_code == 200, answer.text
    watching = asyncio.create_task(watch())
    await asyncio.gather(*(person(number) for number in range(connections)))
    watching.cancel()
    seen.samples.append((time.monotonic() - began, resident_bytes(pid)))
    return seen


# -- what it shows --------------------------------------------------------------------------------


def table(seen: Seen) -> str:
    """Return what a person wants to see."""
    lines = [" minutes   MB"]
    step = max(1, len(seen.samples) // 12)
    lines += [f"{at / 60:8.1f} {size / MB:6.1f}" for at, size in seen.samples[::step]]
    for (name, status), count in sorted(seen.answers.items()):
        lines.append(f"{name:8} {status or 'hung up':>7} {count:7}")
    found = trend(seen.samples)
    lines += [
        *seen.undeserved[:5],
        f"{sum(seen.answers.values())} calls, {len(seen.undeserved)} with an answer not deserved",
        f"after the warm-up {found.at_start / MB:.1f} MB, then {found.growth / MB:+.2f} MB: "
        + ("it does not grow" if found.holds else "IT GROWS"),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=6)
    asked = parser.parse_args()
    with own_server() as server:
        seen = asyncio.run(load(server, seconds=60 * asked.minutes, connections=asked.connections))
    click.echo(table(seen))
    return 0 if trend(seen.samples).holds and not seen.undeserved else 1


if __name__ == "__main__":
    sys.exit(main())
