"""What every client's script says and checks: steps, and values that must be the plain answers'.

Reads BASE, KEY, MODEL and RERANK_MODEL. Prints one JSON line for each step that was tried.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

BASE, KEY = os.environ["BASE"], os.environ["KEY"]
MODEL, RERANK_MODEL = os.environ["MODEL"], os.environ["RERANK_MODEL"]
WRONG_KEY, NO_MODEL = "gr-" + "0" * 38, "no-such-model"
TEXTS = [
    "A man is eating food.",
    "The sky is blue today.",
    "Zürich liegt an der Limmat: 東京 does not.",
    "To reset your password, open Settings and choose Security.",
]
QUERY = "How do I reset my password?"
DOCUMENTS = [
    "Invoices are sent on the first of every month.",
    "Our office is closed on public holidays.",
    "Password reset: open Settings, choose Security, then Reset password.",
    "A password has at least twelve characters.",
    "The canteen serves lunch until two.",
]
SAME_COSINE, SAME_NUMBER = 0.999, 1e-3
current = ["?"]


def client(name: str) -> None:
    """Say which row of the table the next steps belong to."""
    current[0] = name


def say(step: str, why: str | None) -> None:
    line = json.dumps({"client": current[0], "step": step, "why": why})
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Try one thing; the next ones are tried however it ends."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a client raises is what its user would see
        text = " ".join(str(error).split())
        say(name, f"{type(error).__name__}: {text}"[:400])
    else:
        say(name, None)


@contextmanager
def refused(name: str, kind: type[Exception], *words: str) -> Iterator[None]:
    """Try what must fail: with the client's own error, in which the server's words can be read."""
    with step(name):
        raised = None
        try:
            yield
        except kind as error:
            raised = error
        assert raised is not None, "was answered"
        shown = f"{raised!s} {raised!r} {getattr(raised, 'body', '')}".lower()
        missing = [word for word in words if word.lower() not in shown]
        assert not missing, f"{type(raised).__name__} does not say {missing}: {shown[:200]}"


def plain(path: str, body: dict[str, Any]) -> Any:
    """Ask the server without any client."""
    request = urllib.request.Request(
        BASE + path,
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def embed_plainly(texts: Sequence[str]) -> np.ndarray:
    """The vectors of the OpenAI-shaped answer, float32[texts, dimensions]."""
    data = plain("/v1/embeddings", {"model": MODEL, "input": list(texts)})["data"]
    return np.array([item["embedding"] for item in data], dtype=np.float32)


VECTORS = embed_plainly(TEXTS)
QUERY_VECTOR = embed_plainly([QUERY])[0]
RANKED = [
    (each["index"], each["relevance_score"])
    for each in plain(
        "/v1/rerank", {"model": RERANK_MODEL, "query": QUERY, "documents": DOCUMENTS}
    )["results"]
]


def cosines(got: Any, expected: Any) -> np.ndarray:
    """One for each row."""
    one, other = np.atleast_2d(np.asarray(got, float)), np.atleast_2d(np.asarray(expected, float))
    assert one.shape == other.shape, f"shape {one.shape} instead of {other.shape}"
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.sum(one * other, axis=1) / lengths


def same(got: Any, expected: Any = VECTORS) -> None:
    """Require the vectors of the plain answer, in their order."""
    assert cosines(got, expected).min() >= SAME_COSINE, f"cosines {cosines(got, expected)}"
    furthest = float(np.abs(np.atleast_2d(np.asarray(got, float)) - expected).max())
    assert furthest <= SAME_NUMBER, f"numbers differ by {furthest}"


def same_direction(got: Any, expected: Any = VECTORS) -> None:
    """Require the plain answer's vectors, of whatever lengths: some ask for none of length 1."""
    assert cosines(got, expected).min() >= SAME_COSINE, f"cosines {cosines(got, expected)}"


def same_query(got: Any) -> None:
    same(got, QUERY_VECTOR)


def packed(expected: Any = VECTORS) -> np.ndarray:
    """One bit for each number: whether it is above zero; uint8[texts, dimensions / 8]."""
    return np.packbits(np.asarray(expected) > 0, axis=-1)


def same_bytes(got: Any, kind: str, expected: Any = VECTORS) -> None:
    """Require int8, uint8, binary or ubinary of the vectors, whole numbers in the type's range."""
    numbers = np.asarray(got)
    assert numbers.dtype.kind in "iu", f"{kind} has {numbers.dtype}"
    low, high = (0, 255) if kind.startswith("u") else (-128, 127)
    assert low <= numbers.min(), f"{kind} has {numbers.min()}"
    assert numbers.max() <= high, f"{kind} has {numbers.max()}"
    if kind == "ubinary":
        assert np.array_equal(numbers, packed(expected)), "other bits than numpy's"
    elif kind == "binary":
        assert np.array_equal(numbers, packed(expected).astype(int) - 128), (
            "other bits than numpy's"
        )
    else:
        centred = numbers.astype(int) - (128 if kind == "uint8" else 0)
        # A step of a byte is a few percent of a typical number of a vector of length 1.
        assert cosines(centred, expected).min() >= 0.99, f"{kind}: {cosines(centred, expected)}"


def ranked(pairs: Any, top_n: int | None = None, expected: Any = None) -> None:
    """Require the plain answer's indices and scores, best first."""
    got = [(int(index), float(score)) for index, score in pairs]
    wanted = (RANKED if expected is None else expected)[:top_n]
    assert [index for index, _ in got] == [index for index, _ in wanted], f"order {got}"
    for (_, score), (_, right) in zip(got, wanted, strict=True):
        assert abs(score - right) <= SAME_NUMBER, f"scores {got} instead of {wanted}"


def waited(coroutine: Callable[[], Any]) -> Any:
    """Run an asynchronous client's call."""
    import asyncio

    return asyncio.run(coroutine())
