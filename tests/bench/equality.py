"""Equality: whatever company a text is computed in, it gets its own vector in its own place.

    python -m tests.bench.equality [--inputs 100000] [--connections 32]

Many clients ask at once for 1 to 64 texts of 1 to 300 words, drawn from some 8,000 distinct ones,
so that many are equal within a request and across requests that wait together; vectors come back as
base64 or as numbers. Each is held to the one that its text got alone, on one thread, in this
process. Proves: every cosine is at least 0.9999, and `usage` counts exactly these texts' tokens.
"""

import argparse
import asyncio
import base64
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click
import httpx2
import numpy as np

from appliance.engine.vectors import Matrix
from tests.bench.load import client_of, own_server, text
from tests.bench.reference import cosines, vectors_of
from tests.server import EMBED

SEED = 20_261_124
DISTINCT = 8_000
TEXTS_MAX = 64
SAME = 0.9999
LENGTHS = (((3, 12), 90), ((1, 2), 2), ((13, 60), 6), ((61, 300), 2))
"""Words, and out of a hundred texts how many: most are short, or a small machine would take hours."""
NEIGHBOURS = 0.2
"""Share of the texts of a request that repeat one of the same request."""


@dataclass
class Found:
    """What the answers were."""

    inputs: int = 0
    requests: int = 0
    seconds: float = 0.0
    worst: float = 1.0
    worst_at: str = ""
    below: int = 0
    """Vectors that are not their text's."""
    miscounted: int = 0
    """Answers whose `usage` is not their texts' tokens."""
    failures: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.below or self.miscounted or self.failures)


@dataclass(frozen=True)
class Expected:
    """The distinct texts, and what each must get; row and tokens stand at the text's index."""

    texts: list[str]
    rows: Matrix
    tokens: list[int]

    @property
    def closest(self) -> float:
        """The greatest cosine of two distinct texts: below `SAME`, no mix-up can hide."""
        greatest = -1.0
        for start in range(0, len(self.rows), 1_000):
            block = self.rows[start : start + 1_000] @ self.rows.T
            block[np.arange(len(block)), start + np.arange(len(block))] = -1
            greatest = max(greatest, float(block.max()))
        return greatest


def distinct_texts(count: int) -> list[str]:
    """Return texts that all differ; the same count gives the same ones."""
    chance = random.Random(f"{SEED} texts {count}")
    ranges = [words for words, _ in LENGTHS]
    shares = [share for _, share in LENGTHS]
    found: dict[str, None] = {}
    while len(found) < count:
        low, high = chance.choices(ranges, shares)[0]
        found[text(chance, low, high)] = None
    return list(found)


def requests_of(inputs: int, distinct: int) -> Iterator[list[int]]:
    """Yield each request as the indices of its texts, `inputs` in all."""
    chance = random.Random(f"{SEED} requests {inputs}")
    while inputs:
        size = min(inputs, chance.choice((1, 1, 2, 3, 8, 20, chance.randint(1, TEXTS_MAX))))
        chosen: list[int] = []
        for _ in range(size):
            repeats = chosen and chance.random() < NEIGHBOURS
            chosen.append(chance.choice(chosen) if repeats else chance.randrange(distinct))
        inputs -= size
        yield chosen


async def ask(url: str, key: str, expected: Expected, *, inputs: int, connections: int) -> Found:
    """Send every request and hold every vector to its text's."""
    waiting = enumerate(requests_of(inputs, len(expected.texts)))
    found = Found()
    began = time.perf_counter()

    async def sender() -> None:
        for number, chosen in waiting:
            given = [expected.texts[index] for index in chosen]
            body: dict[str, Any] = {
                "model": EMBED,
                "input": given[0] if len(given) == 1 and number % 2 else given,
                "encoding_format": ("base64", "float")[number % 3 == 0],
            }
            answer = await client.post("/v1/embeddings", json=body, headers={"prefer": "wait=60"})
            hold(found, number, chosen, answer, expected)

    async with client_of(url, key, connections=connections) as client:
        await asyncio.gather(*(sender() for _ in range(connections)))
    found.seconds = time.perf_counter() - began
    return found


def hold(
    found: Found, number: int, chosen: list[int], answer: httpx2.Response, expected: Expected
) -> None:
    """Add one answer to what was found."""
    found.requests += 1
    found.inputs += len(chosen)
    if answer.status_code != 200:
        found.failures.append(f"request {number}: {answer.status_code} {answer.text[:200]}")
        return
    document = answer.json()
    data = document["data"]
    if [item["index"] for item in data] != list(range(len(chosen))):
        found.failures.append(f"request {number}: {len(data)} vectors for {len(chosen)} texts")
        return
    rows = np.stack([vector_of(item["embedding"]) for item in data])
    near = cosines(rows, expected.rows[chosen])
    found.below += int(np.count_nonzero(~(near >= SAME)))
    if not near.min() >= found.worst:
        place = int(near.argmin())
        found.worst = float(near[place])
        found.worst_at = f"request {number}, text {place} of {len(chosen)}"
    tokens = sum(expected.tokens[index] for index in chosen)
    found.miscounted += document["usage"]["prompt_tokens"] != tokens


def vector_of(embedding: str | list[float]) -> Matrix:
    """Return one vector, however it was written."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return np.array(embedding, np.float32)


def table(found: Found, expected: Expected, serial_s: float) -> str:
    """Return what a person wants to see."""
    texts = f"{len(expected.texts)} distinct texts, one at a time: {serial_s:.0f} s"
    lines = [
        f"{texts}; the closest two have cosine {expected.closest:.5f}",
        f"{found.inputs} inputs in {found.requests} requests: {found.seconds:.0f} s",
        f"worst cosine {found.worst:.7f} ({found.worst_at}); {found.below} below {SAME}",
        f"{found.miscounted} answers with another usage; {len(found.failures)} failures",
        *found.failures[:5],
        f"each vector is its own text's: {'yes' if found.holds else 'NO'}",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--distinct", type=int, default=DISTINCT)
    asked = parser.parse_args()
    texts = distinct_texts(asked.distinct)
    began = time.perf_counter()
    expected = Expected(texts, *vectors_of(texts))
    serial_s = time.perf_counter() - began
    with own_server() as server:
        key = str(server.mint("equality")["key"])
        found = asyncio.run(
            ask(server.url, key, expected, inputs=asked.inputs, connections=asked.connections)
        )
    click.echo(table(found, expected, serial_s))
    return 0 if found.holds else 1


if __name__ == "__main__":
    sys.exit(main())
