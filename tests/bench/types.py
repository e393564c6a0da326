"""Types: what each kind of numbers costs in retrieval, over the API.

    python -m tests.bench.types --data FILE [--url URL --key KEY] [--at 10]

FILE is the STS benchmark's CSV (`tests.bench.stsb`). The first sentences of pairs that people found
alike (4 and above) are queries, all second sentences the collection. For each kind of numbers the
vectors come through `POST /v1/embeddings` with `output_dtype`; bits are compared by their Hamming
distance, all else by cosine. Prints the share of the queries whose own second sentence is among the
nearest `--at`, the share of the nearest `--at` that float32 finds too, and the bytes of a vector.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import httpx2
import numpy as np

from tests.bench.load import ANSWER_SECONDS_MAX, own_server
from tests.bench.stsb import TEXTS_MAX, Pair, read
from tests.server import EMBED

ALIKE = 4.0
KINDS = ("float", "float16", "int8", "uint8", "binary", "ubinary")
BITS = {"binary", "ubinary"}
BYTES = {"float": 4.0, "float16": 2.0, "int8": 1.0, "uint8": 1.0, "binary": 1 / 8, "ubinary": 1 / 8}
"""Of one number."""


def embed(client: httpx2.Client, texts: Sequence[str], kind: str) -> np.ndarray:
    """Return the vectors of texts in a kind of numbers, as the server gives them.

    Raises:
        ValueError: the server refuses; quotes it.
    """
    rows = []
    for start in range(0, len(texts), TEXTS_MAX):
        body = {
            "model": EMBED,
            "input": list(texts[start : start + TEXTS_MAX]),
            "output_dtype": kind,
        }
        answer = client.post("/v1/embeddings", json=body)
        if answer.status_code != 200:
            raise ValueError(f"the server answers {answer.status_code}: {answer.text[:300]}")
        rows += [item["embedding"] for item in answer.json()["data"]]
    return np.array(rows)


def similarities(queries: np.ndarray, collection: np.ndarray, kind: str) -> np.ndarray:
    """Return float[n_queries, n_texts], larger for nearer ones."""
    if kind in BITS:
        shift = 128 if kind == "binary" else 0
        one, two = (
            np.unpackbits((rows + shift).astype(np.uint8), axis=1) for rows in (queries, collection)
        )
        return -(one[:, None, :] != two[None, :, :]).sum(axis=2, dtype=np.int32)
    shift = 128 if kind == "uint8" else 0
    one, two = ((rows - shift).astype(np.float64) for rows in (queries, collection))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    two /= np.linalg.norm(two, axis=1, keepdims=True)
    found: np.ndarray = one @ two.T
    return found


def nearest(similar: np.ndarray, at: int) -> np.ndarray:
    """Return the indices of the `at` largest of each row, the first of equal ones first."""
    return np.argsort(-similar, axis=1, kind="stable")[:, :at]


def recall(found: np.ndarray, wanted: Sequence[int]) -> float:
    """Return the share of the rows that hold their wanted index."""
    return float(np.mean([want in row for row, want in zip(found, wanted, strict=True)]))


def agreement(found: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of the reference's indices that are found too."""
    shares = [len({*one} & {*two}) / len(two) for one, two in zip(found, reference, strict=True)]
    return float(np.mean(shares))


def table(
    url: str, key: str, pairs: Sequence[Pair], at: int
) -> list[tuple[str, float, float, int]]:
    """Return kind, recall, agreement with float32 and bytes of a vector."""
    collection = list(dict.fromkeys(pair.two for pair in pairs))
    alike = [pair for pair in pairs if pair.score >= ALIKE]
    wanted = [collection.index(pair.two) for pair in alike]
    rows, reference = [], None
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS_MAX) as client:
        for kind in KINDS:
            queries = embed(client, [pair.one for pair in alike], kind)
            texts = embed(client, collection, kind)
            parts = np.array_split(queries, max(1, len(queries) // 32))
            found = np.concatenate([nearest(similarities(part, texts, kind), at) for part in parts])
            reference = found if reference is None else reference
            size = round(BYTES[kind] * 384)
            rows.append((kind, recall(found, wanted), agreement(found, reference), size))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the STS benchmark's CSV")
    parser.add_argument("--url", help="a running server; else one is started")
    parser.add_argument("--key", default="")
    parser.add_argument("--at", type=int, default=10)
    asked = parser.parse_args(arguments)
    try:
        pairs = read(asked.data)
        if asked.url:
            rows = table(asked.url, asked.key, pairs, asked.at)
        else:
            with own_server() as server:
                rows = table(server.url, str(server.mint("types")["key"]), pairs, asked.at)
    except (OSError, ValueError, httpx2.TransportError) as error:
        click.echo(f"{error}", err=True)
        return 1
    click.echo(
        f"| kind | recall@{asked.at} | of float's nearest {asked.at} | bytes |\n|---|---|---|---|"
    )
    for kind, found, same, size in rows:
        click.echo(f"| {kind} | {found:.4f} | {same:.4f} | {size:,} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
