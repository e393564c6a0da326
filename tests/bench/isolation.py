"""What it costs to compute a model in a process of its own: two servers, measured in turns.

    .venv/bin/python -m tests.bench.isolation [--rounds 20] [--seconds 0.5]

Both serve the starter model with the same tuning; one computes it in its own process, the other in
a process beside it. Each round measures the one, then the other, and the next round begins with the
other. What counts is the median of the rounds' ratios: other processes slow both halves of a round.
"""

import argparse
import json
import platform
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from tests.bench.load import percentile, text
from tests.server import EMBED, Server

WAYS = ("none", "process")
SEED = 5
PARTS = {
    # name: (connections, texts of a call, words of a text)
    "1 connection, 1 short text": (1, 1, 8),
    "16 connections, 1 short text": (16, 1, 8),
    "1 connection, 32 texts of 64": (1, 32, 62),
}


@dataclass
class Found:
    """What was measured of one server in one part."""

    p50: list[float] = field(default_factory=list)
    """Seconds of a call, of each round."""
    p95: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    """Texts a second, of each round."""


@contextmanager
def server(folder: Path, isolation: str) -> Iterator[tuple[Server, str]]:
    started = Server(folder / isolation)
    env = {"GIGAROUTER_ENGINE_ISOLATION": isolation}
    try:
        started.start(env=env)
        yield started, str(started.mint()["key"])
        assert started.stop() == 0
    finally:
        started.close()


def calls(
    port: int, key: str, part: tuple[int, int, int], seconds: float, seed: int
) -> tuple[list[float], float]:
    """Return the seconds of each call, and the texts a second of all of them."""
    connections, count, words = part
    found: list[list[float]] = [[] for _ in range(connections)]
    until = time.perf_counter() + seconds

    def work(number: int) -> None:
        chance = random.Random(1000 * seed + number)
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        while time.perf_counter() < until:
            texts = [text(chance, words, words) for _ in range(count)]
            body = json.dumps({"model": EMBED, "input": texts, "encoding_format": "base64"})
            began = time.perf_counter()
            connection.request("POST", "/v1/embeddings", body, headers)
            answer = connection.getresponse()
            answer.read()
            found[number].append(time.perf_counter() - began)
            assert answer.status == 200
        connection.close()

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    flat = [each for one in found for each in one]
    return flat, count * len(flat) / took


def measure(rounds: int, seconds: float) -> dict[str, dict[str, Found]]:
    results = {part: {way: Found() for way in WAYS} for part in PARTS}
    with tempfile.TemporaryDirectory(prefix="gigarouter-isolation-") as folder, ExitStack() as all_:
        servers = {way: all_.enter_context(server(Path(folder), way)) for way in WAYS}
        for number in range(-1, rounds):  # the first does not count
            for part, shape in PARTS.items():
                for way in WAYS if number % 2 else reversed(WAYS):
                    running, key = servers[way]
                    took, rate = calls(running.port, key, shape, seconds, SEED + number)
                    if number >= 0:
                        results[part][way].p50.append(percentile(took, 0.5))
                        results[part][way].p95.append(percentile(took, 0.95))
                        results[part][way].rates.append(rate)
    return results


def compared(here: list[float], there: list[float], *, by: float = 1.0) -> str:
    """Return both medians, and the median and the quartiles of the rounds' ratios."""
    ratios = [b / a - 1 for a, b in zip(here, there, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = f"{by * statistics.median(here):7.2f} -> {by * statistics.median(there):7.2f}"
    return f"{medians} ({middle:+.1%}; {low:+.1%} to {high:+.1%})"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    print(f"{processor()}; {options.rounds} rounds of {options.seconds:g} s each")  # noqa: T201 - for whoever measures
    for part, ways in measure(options.rounds, options.seconds).items():
        here, there = (ways[way] for way in WAYS)
        line = [f"{part:30}"]
        line.append(f"p50 {compared(here.p50, there.p50, by=1e3)} ms")
        line.append(f"p95 {compared(here.p95, there.p95, by=1e3)} ms")
        line.append(f"texts/s {compared(here.rates, there.rates)}")
        print("  ".join(line))  # noqa: T201 - as above


if __name__ == "__main__":
    main()
