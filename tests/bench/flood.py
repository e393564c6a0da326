"""Flood: one key's flood does not starve another key that asks for one text at a time.

    python -m tests.bench.flood [--seconds 20] [--rounds 3] [--url URL --key-loud K --key-quiet K]

Each round has three phases: the quiet key alone, the flood alone, both. The flood keeps requests of
1,000 texts, 10 to 60 words each and none sent twice, in flight from a process of its own, so that
its bookkeeping is not measured as the server's. A phase with a flood ends when its last request is
answered. Proves: the quiet key's p95 under the flood is at most twice its p95 alone, plus one
batch, the call of the engine that is running when it arrives.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import click
import httpx2

from tests.bench.load import client_of, median, own_server, percentile, text
from tests.server import EMBED

SEED = 20_261_123
TEXTS, WORDS_MIN, WORDS_MAX = 1_000, 10, 60
IN_FLIGHT = 2
QUIET_WORDS = 14
PAUSE_S_MAX = 0.1
"""Between two quiet calls, drawn anew: calls on the heels of each other would always meet a batch at
its beginning."""


@dataclass(frozen=True)
class Side:
    """A server, and the two keys that meet there."""

    url: str
    loud: str
    quiet: str


@dataclass(frozen=True)
class Flood:
    """What the loud key got."""

    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else float("nan")


@dataclass(frozen=True)
class Round:
    """One round; latencies in milliseconds."""

    alone: list[float]
    flood_alone: Flood
    under: list[float]
    flood: Flood
    batch_ms: float


# -- the loud key ---------------------------------------------------------------------------------


async def flood(side: Side, *, seed: int, seconds: float, texts: int) -> Flood:
    """Keep requests in flight for some seconds, then let them finish."""
    chance = random.Random(f"{SEED} loud {seed}")
    tokens = requests = 0
    began = time.perf_counter()

    async def sender() -> None:
        nonlocal tokens, requests
        while not requests or time.perf_counter() - began < seconds:
            given = [text(chance, WORDS_MIN, WORDS_MAX) for _ in range(texts)]
            body = {"model": EMBED, "input": given, "encoding_format": "base64"}
            answer = await client.post("/v1/embeddings", json=body)
            if answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))
                continue
            assert answer.status_code == 200, answer.text[:300]
            requests += 1
            # Two megabytes of vectors need not be read to know what they cost.
            tokens += int(answer.content.rpartition(b'"total_tokens":')[2].split(b"}")[0])

    async with client_of(side.url, side.loud) as client:
        await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))
    return Flood(requests, tokens, time.perf_counter() - began)


def flood_process(side: Side, seed: int, seconds: float, texts: int) -> Flood:
    return asyncio.run(flood(side, seed=seed, seconds=seconds, texts=texts))


# -- the quiet key --------------------------------------------------------------------------------


async def quiet(side: Side, *, seed: int, until: asyncio.Event) -> list[float]:
    """Ask for one text at a time until told to stop; return the latencies."""
    chance = random.Random(f"{SEED} quiet {seed}")
    found = []
    async with client_of(side.url, side.quiet) as client:
        while not until.is_set():
            body = {
                "model": EMBED,
                "input": text(chance, QUIET_WORDS, QUIET_WORDS),
                "encoding_format": "base64",
            }
            began = time.perf_counter()
            answer = await client.post("/v1/embeddings", json=body)
            found.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, answer.text[:300]
            await asyncio.sleep(chance.uniform(0, PAUSE_S_MAX))
    # The first opened the connection, the last may have outlived the flood.
    return found[1:-1]


# -- rounds ---------------------------------------------------------------------------------------


async def measure(side: Side, *, seconds: float, rounds: int, texts: int = TEXTS) -> list[Round]:
    """Run the rounds; their phases take turns, so that a slow minute of the machine meets all."""
    loop = asyncio.get_running_loop()
    found = []
    # A fresh process: a fork would share this one's sockets and loop.
    with multiprocessing.get_context("spawn").Pool(1) as other:

        async def flooded(seed: int) -> Flood:
            call = partial(other.apply, flood_process, (side, seed, seconds, texts))
            return await loop.run_in_executor(None, call)

        await _warm_up(side)
        for number in range(rounds):
            alone_ends = asyncio.Event()
            loop.call_later(seconds, alone_ends.set)
            alone = await quiet(side, seed=2 * number, until=alone_ends)
            flood_alone = await flooded(2 * number)
            ends = asyncio.Event()
            asking = asyncio.create_task(quiet(side, seed=2 * number + 1, until=ends))
            try:
                met = await flooded(2 * number + 1)
            finally:
                ends.set()
            under = await asking
            batch_ms = await _bin_ms(side, flood_alone)
            found.append(Round(alone, flood_alone, under, met, batch_ms))
    return found


async def _warm_up(side: Side) -> None:
    headers = {"prefer": "wait=60"}
    async with client_of(side.url, side.quiet) as client:
        for _ in range(5):
            answer = await client.post(
                "/v1/embeddings", json={"model": EMBED, "input": "warm"}, headers=headers
            )
            assert answer.status_code == 200, answer.text


async def _bin_ms(side: Side, met: Flood) -> float:
    """Return how long one full batch takes while every worker computes one."""
    async with client_of(side.url, side.quiet) as client:
        tuning = (await client.get(f"/v1/models/{EMBED}")).json()["tuning"]
    return 1000 * float(tuning["max_batch_tokens"]) * float(tuning["workers"]) / met.tokens_per_s


@contextmanager
def own_side() -> Iterator[Side]:
    """Yield a server of our own with two keys."""
    with own_server() as server:
        yield Side(server.url, str(server.mint("loud")["key"]), str(server.mint("quiet")["key"]))


# -- what it shows --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Medians over the rounds, in milliseconds."""

    alone_p95: float
    under_p95: float
    batch_ms: float

    @property
    def bound_ms(self) -> float:
        return 2 * self.alone_p95 + self.batch_ms

    @property
    def holds(self) -> bool:
        return self.under_p95 <= self.bound_ms


def verdict(rounds: list[Round]) -> Verdict:
    """Compare medians of the rounds' percentiles."""
    return Verdict(
        median([percentile(each.alone, 0.95) for each in rounds]),
        median([percentile(each.under, 0.95) for each in rounds]),
        median([each.batch_ms for each in rounds]),
    )


def table(rounds: list[Round]) -> str:
    """Return what a person wants to see."""
    lines = ["              calls      p50      p95      p99   (ms; medians of the rounds)"]
    for name, latencies in (
        ("quiet alone", [each.alone for each in rounds]),
        ("under flood", [each.under for each in rounds]),
    ):
        shares = [median([percentile(each, q) for each in latencies]) for q in (0.5, 0.95, 0.99)]
        figures = " ".join(f"{share:8.2f}" for share in shares)
        lines.append(f"{name:12} {sum(map(len, latencies)):6} {figures}")
    for name, floods in (
        ("flood alone", [each.flood_alone for each in rounds]),
        ("beside quiet", [each.flood for each in rounds]),
    ):
        rate = median([each.tokens_per_s for each in floods])
        requests = sum(each.requests for each in floods)
        lines.append(f"{name:12} {requests:6} requests of {TEXTS} texts, {rate:.0f} tokens/s")
    found = verdict(rounds)
    each_p95 = ", ".join(f"{percentile(each.under, 0.95):.1f}" for each in rounds)
    lines += [
        f"one batch under the flood {found.batch_ms:.1f} ms; quiet p95 of each round {each_p95}",
        f"p95 {found.under_p95:.1f} <= {found.bound_ms:.1f}, twice p95 alone and a batch: "
        + ("yes" if found.holds else "NO"),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help="a running server, with both keys; else one is started")
    parser.add_argument("--key-loud", default="")
    parser.add_argument("--key-quiet", default="")
    asked = parser.parse_args()

    def run(side: Side) -> list[Round]:
        return asyncio.run(measure(side, seconds=asked.seconds, rounds=asked.rounds))

    try:
        if asked.url:
            rounds = run(Side(asked.url, asked.key_loud, asked.key_quiet))
        else:
            with own_side() as side:
                rounds = run(side)
    except httpx2.TransportError as error:
        click.echo(f"{asked.url}: {error!r}", err=True)
        return 1
    click.echo(table(rounds))
    return 0 if verdict(rounds).holds else 1


if __name__ == "__main__":
    sys.exit(main())
