"""Overload: ten times the load that a server can compute costs it nothing of what it answers.

    python -m tests.bench.overload [--seconds 60] [--patience 20] [--loads short,long,mixed]
                                   [--factors 1,2,5,10] [--fake]

Clients call without pause, each with a key of its own, and give a call up after their patience
(which they say: `Prefer: wait=N`). One that is refused waits as long as `Retry-After` says. With so
many clients as keep the engine busy (factor 1) and with two, five and ten times as many, it counts
texts that were answered in time: the goodput. What is on its way when the time is over is waited
for, and counted with its time: a long call is a large part of a short run. Proves: at ten times the load at least 90 % of the
best, for short calls, long ones and both together; prints how long a refusal took,
for these clients and for one that has nothing else to do, and how many of those who came back when
they were told to were let in.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import random
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import click
import httpx2

from tests.bench.load import own_server, percentile, text
from tests.server import EMBED, Server

SEED = 20_261_126
KINDS = {"short": (1, 16), "long": (400, 60)}
"""Texts of a call, and words of each."""
CLIENTS = {"short": 8, "long": 2, "mixed": 6}
"""As many as keep two cores busy."""
GOODPUT_SHARE = 0.9
PROBES, PROBE_EVERY_S, PROBE_S = 8, 0.5, 0.5
"""Long calls of a client that is quick to hear of a refusal, and leaves soon if it hears of none: one
that is let in takes the place of another's."""


@dataclass
class Seen:
    """What the clients of one run saw."""

    texts: int = 0
    """Of answers that came in time."""
    last_s: float = 0.0
    """When the last of them came, since the beginning."""
    late: int = 0
    refused: int = 0
    refusals_ms: list[float] = field(default_factory=list)
    came_back: int = 0
    let_in: int = 0
    """Of those that came back when they were told to."""
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Seen") -> None:
        """Add what others saw."""
        for name in ("texts", "late", "refused", "came_back", "let_in"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_s = max(self.last_s, other.last_s)
        self.refusals_ms += other.refusals_ms
        for name, count in other.errors.items():
            self.errors[name] = self.errors.get(name, 0) + count


@dataclass(frozen=True)
class Run:
    """One load at one factor."""

    load: str
    factor: int
    seconds: float
    seen: Seen
    lone_ms: list[float]
    """How long refusals took for a client that did nothing else, one at a time."""

    @property
    def goodput(self) -> float:
        """Texts a second."""
        return self.seen.texts / max(self.seconds, self.seen.last_s)


async def client(
    url: str, key: str, kind: str, *, until: float, patience_s: float, chance: random.Random
) -> Seen:
    """Call until the time is over; what would end later is not counted."""
    seen, is_back, start = Seen(), False, time.monotonic()
    count, words = KINDS[kind]
    headers = {"authorization": f"Bearer {key}", "prefer": f"wait={round(patience_s)}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=patience_s) as http:
        while time.monotonic() < until:
            # Made anew for each call, so that none shares another's work; its time is not counted.
            texts = [text(chance, words, words) for _ in range(count)]
            body = json.dumps({"model": EMBED, "input": texts}).encode()
            await asyncio.sleep(0)
            began = time.monotonic()
            try:
                answer = await http.post("/v1/embeddings", content=body)
            except httpx2.TimeoutException:
                seen.late += 1
                continue
            except httpx2.TransportError as error:
                name = type(error).__name__
                seen.errors[name] = seen.errors.get(name, 0) + 1
                continue
            took_s = time.monotonic() - began
            if is_back:
                seen.came_back += 1
                seen.let_in += answer.status_code == 200
            is_back = False
            if answer.status_code == 200:
                seen.texts += count
                seen.last_s = time.monotonic() - start
            elif answer.status_code == 429:
                seen.refused += 1
                seen.refusals_ms.append(took_s * 1_000)
                await asyncio.sleep(
                    min(int(answer.headers["retry-after"]), until - time.monotonic() + 0.01)
                )
                is_back = True
            else:
                name = str(answer.status_code)
                seen.errors[name] = seen.errors.get(name, 0) + 1
    return seen


def crowd(
    url: str, keys: Sequence[tuple[str, str]], seconds: float, patience_s: float, seed: int
) -> Seen:
    """Run clients in this process: one for each (key, kind of call)."""

    async def all_of_them() -> Seen:
        until = time.monotonic() + seconds
        found = await asyncio.gather(
            *(
                client(
                    url,
                    key,
                    kind,
                    until=until,
                    patience_s=patience_s,
                    chance=random.Random(f"{seed} {number}"),
                )
                for number, (key, kind) in enumerate(keys)
            )
        )
        whole = Seen()
        for each in found:
            whole.add(each)
        return whole

    return asyncio.run(all_of_them())


def measure(server: Server, load: str, factor: int, *, seconds: float, patience_s: float) -> Run:
    """Load a server from a process of the clients' own."""
    kinds = [load] if load in KINDS else sorted(KINDS)
    count = CLIENTS[load] * factor
    keys = [(str(server.mint()["key"]), kinds[number % len(kinds)]) for number in range(count)]
    probes = [(str(server.mint()["key"]), probe(number)) for number in range(PROBES)]
    lone_ms = []
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        crowded = pool.apply_async(crowd, (server.url, keys, seconds, patience_s, SEED))
        for number in itertools.count():
            crowded.wait(PROBE_EVERY_S)
            if crowded.ready():
                break
            lone_ms += refusal_ms(server.port, *probes[number % PROBES], patience_s=patience_s)
        seen = crowded.get()
    return Run(load, factor, seconds, seen, lone_ms)


def probe(number: int) -> bytes:
    """Return the body of a long call."""
    chance = random.Random(f"{SEED} probe {number}")
    count, words = KINDS["long"]
    texts = [text(chance, words, words) for _ in range(count)]
    return json.dumps({"model": EMBED, "input": texts}).encode()


def refusal_ms(port: int, key: str, body: bytes, *, patience_s: float) -> list[float]:
    """Make a call, and leave at once if it is not refused; return how long the refusal took."""
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"prefer: wait={round(patience_s)}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", port), PROBE_S) as client:
        began = time.perf_counter()
        client.sendall(head + body)
        try:
            answer = client.recv(65_536)
        except TimeoutError:
            return []
        took_ms = (time.perf_counter() - began) * 1_000
    return [took_ms] if answer.startswith(b"HTTP/1.1 429 ") else []


def row(run: Run, best: float) -> str:
    """Return a line of the table."""
    seen = run.seen
    p50, p99 = (percentile(seen.refusals_ms, share) for share in (0.5, 0.99))
    lone50, lone99 = (percentile(run.lone_ms, share) for share in (0.5, 0.99))
    back = f"{seen.let_in / seen.came_back:.0%} of {seen.came_back}" if seen.came_back else "-"
    errors = ", ".join(f"{count} x {name}" for name, count in sorted(seen.errors.items()))
    return (
        f"{run.load:6}{run.factor:4d} x {run.goodput:9.1f} texts/s {run.goodput / best:6.0%}"
        f"   late {seen.late:4d}   refused {seen.refused:5d} (p50 {p50:.0f}, p99 {p99:.0f} ms;"
        f" {len(run.lone_ms)} alone {lone50:.0f}, {lone99:.0f} ms)"
        f"   let in at their next try {back}   {errors}"
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--patience", type=float, default=20.0)
    parser.add_argument("--loads", default="short,long,mixed")
    parser.add_argument("--factors", default="1,2,5,10")
    parser.add_argument("--fake", action="store_true")
    asked = parser.parse_args()
    holds = True
    with own_server(*(("--fake",) if asked.fake else ())) as server:
        for load in asked.loads.split(","):
            runs = [
                measure(server, load, int(factor), seconds=asked.seconds, patience_s=asked.patience)
                for factor in asked.factors.split(",")
            ]
            best = max(run.goodput for run in runs) or 1.0
            for run in runs:
                click.echo(row(run, best))
            holds = holds and runs[-1].goodput >= GOODPUT_SHARE * best
    click.echo("holds" if holds else "does not hold")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
