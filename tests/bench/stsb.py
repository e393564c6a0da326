"""STS: the score of the STS benchmark's English test part, over the API, against the published one.

    python -m tests.bench.stsb --data FILE [--url URL --key KEY]

FILE is the benchmark's CSV: a sentence, another one, and how alike people found them (0 to 5).
Every sentence is embedded through `POST /v1/embeddings` with the starter model. Proves: Spearman's
correlation of the cosines with the people's scores, times 100, is the one published for
all-MiniLM-L6-v2 to within 0.05.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import httpx2
import numpy as np

from tests.bench.equality import vector_of
from tests.bench.load import ANSWER_SECONDS_MAX, own_server
from tests.bench.reference import cosines
from tests.server import EMBED

PUBLISHED, NEAR = 82.03, 0.05
TEXTS_MAX = 128
"""Of one request."""
PAIRS_MIN = 3


@dataclass(frozen=True)
class Pair:
    """Two sentences, and how alike people found them."""

    one: str
    two: str
    score: float


def read(path: Path) -> list[Pair]:
    """Return the pairs of a file.

    Raises:
        ValueError: a line has another shape; names it.
        OSError: it cannot be read.
    """
    pairs = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            try:
                one, two, score = row
                pairs.append(Pair(one, two, float(score)))
            except ValueError:
                raise ValueError(
                    f"{path}, line {number}: two sentences and a number, not {len(row)} fields"
                ) from None
    if len(pairs) < PAIRS_MIN:
        raise ValueError(f"{path}: {len(pairs)} pairs are too few for a correlation")
    return pairs


def ranks(values: Sequence[float]) -> np.ndarray:
    """Return each value's place in ascending order, from 1; equal ones share their mean place."""
    given = np.asarray(values, dtype=np.float64)
    _, which, counts = np.unique(given, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared = last - (counts - 1) / 2
    found: np.ndarray = shared[which]
    return found


def spearman(one: Sequence[float], two: Sequence[float]) -> float:
    """Return Spearman's rank correlation; NaN if one side is all equal."""
    first, second = ranks(one), ranks(two)
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale else float("nan")


def embed(client: httpx2.Client, texts: Sequence[str]) -> np.ndarray:
    """Return float32[n_texts, dimensions].

    Raises:
        ValueError: the server refuses; quotes it.
    """
    rows = []
    for start in range(0, len(texts), TEXTS_MAX):
        body = {
            "model": EMBED,
            "input": list(texts[start : start + TEXTS_MAX]),
            "encoding_format": "base64",
        }
        answer = client.post("/v1/embeddings", json=body, headers={"prefer": "wait=60"})
        if answer.status_code != 200:
            raise ValueError(f"the server answers {answer.status_code}: {answer.text[:300]}")
        rows += [vector_of(item["embedding"]) for item in answer.json()["data"]]
    return np.stack(rows)


def score(url: str, key: str, pairs: Sequence[Pair]) -> float:
    """Return the correlation times 100, as it is published.

    Raises:
        ValueError: the server refuses.
        httpx2.TransportError: it cannot be reached.
    """
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS_MAX) as client:
        alike = cosines(
            embed(client, [pair.one for pair in pairs]), embed(client, [pair.two for pair in pairs])
        )
    return 100 * spearman([float(each) for each in alike], [pair.score for pair in pairs])


def holds(found: float) -> bool:
    """Return whether a score is the published one."""
    return abs(found - PUBLISHED) <= NEAR


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the benchmark's CSV")
    parser.add_argument("--url", help="a running server; else one is started")
    parser.add_argument("--key", default="")
    asked = parser.parse_args(arguments)
    try:
        pairs = read(asked.data)
        if asked.url:
            found = score(asked.url, asked.key, pairs)
        else:
            with own_server() as server:
                found = score(server.url, str(server.mint("stsb")["key"]), pairs)
    except (OSError, ValueError, httpx2.TransportError) as error:
        click.echo(f"{error}", err=True)
        return 1
    click.echo(
        f"{len(pairs)} pairs: Spearman's correlation {found:.2f}, published {PUBLISHED}; within "
        f"{NEAR}: {'yes' if holds(found) else 'NO'}"
    )
    return 0 if holds(found) else 1


if __name__ == "__main__":
    sys.exit(main())
