"""Shape cost: what a call costs in another API's shape, beside the same call in ours.

    python -m tests.bench.shape_cost [--rounds 5] [--calls 400] [--url URL --key KEY]

One client, one connection: a text of eight words, then 16 texts, to `/v1/embeddings` and in the
other shapes in turn, call by call, so that whatever else the machine does falls on all alike. All
are asked for floats. Prints each shape's median of the rounds' medians and its ratio to ours.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
import httpx2

from tests.bench.load import ANSWER_SECONDS_MAX, own_server
from tests.server import EMBED

WORDS = ["how", "do", "I", "reset", "the", "password", "of", "my", "account"]
SIZES = (1, 16)
OURS = "/v1/embeddings"


def bodies(texts: list[str]) -> dict[str, dict[str, Any]]:
    """Return a body for each path."""
    return {
        OURS: {"model": EMBED, "input": texts},
        "/v2/embed": {"model": EMBED, "texts": texts, "embedding_types": ["float"]},
        f"/tei/{EMBED}/embed": {"inputs": texts},
        "/api/embed": {"model": EMBED, "input": texts},
    }


def medians(client: httpx2.Client, size: int, calls: int) -> dict[str, float]:
    """Return the median milliseconds of each path's calls, sent in turn."""
    took: dict[str, list[float]] = {}
    for number in range(calls):
        texts = [" ".join([*WORDS, str(number), str(index)]) for index in range(size)]
        for path, body in bodies(texts).items():
            began = time.perf_counter()
            answer = client.post(path, json=body)
            took.setdefault(path, []).append((time.perf_counter() - began) * 1000)
            if answer.status_code != 200:
                raise ValueError(f"{path} answers {answer.status_code}: {answer.text[:300]}")
    return {path: statistics.median(times) for path, times in took.items()}


def ratios(rounds: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Return each path's median milliseconds and the median of its ratios to ours."""
    return {
        path: (
            statistics.median(found[path] for found in rounds),
            statistics.median(found[path] / found[OURS] for found in rounds),
        )
        for path in rounds[0]
    }


def measure(url: str, key: str, *, rounds: int, calls: int) -> None:
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS_MAX) as client:
        for size in SIZES:
            medians(client, size, 20)  # warm
            found = ratios([medians(client, size, calls) for _ in range(rounds)])
            for path, (ms, ratio) in found.items():
                click.echo(f"{size:>3} texts  {path:<48} {ms:7.3f} ms  {ratio:.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--url", help="a running server; else one is started")
    parser.add_argument("--key", default="")
    asked = parser.parse_args(arguments)
    try:
        if asked.url:
            measure(asked.url, asked.key, rounds=asked.rounds, calls=asked.calls)
        else:
            with own_server() as server:
                key = str(server.mint("shapes")["key"])
                measure(server.url, key, rounds=asked.rounds, calls=asked.calls)
    except (OSError, ValueError, httpx2.TransportError) as error:
        click.echo(f"{error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
