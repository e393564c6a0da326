"""What programs that are no library send, replayed: each must be able to read its answer.

A fixture holds a program's calls as its source sends them, and what it reads from the answers:
`vectors` (lists of floats), `encoded` (base64), `vector`, `ranking` (rows with an index and a score),
`texts`, `numbers`, `says` (words of an error), or the `status` alone. `$TEXTS*125` repeats them, `$TEXTS{text}` wraps each.
"""

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.server import RERANK, Server

MODEL = "all-minilm-l6-v2"
TEXTS = [
    "A man is eating food.",
    "The sky is blue today.",
    "Zürich: 東京",
    "Open Settings, then Security.",
]
QUERY = "How do I reset my password?"
DOCUMENTS = [
    "Invoices are sent on the first of every month.",
    "Our office is closed on public holidays.",
    "Password reset: open Settings, choose Security, then Reset password.",
    "A password has at least twelve characters.",
    "The canteen serves lunch until two.",
]
VALUES = {
    "$TEXTS": TEXTS,
    "$TEXTS[0]": TEXTS[0],
    "$TEXTS*125": TEXTS * 125,
    "$TEXTS{text}": [{"text": text} for text in TEXTS],
    "$QUERY": QUERY,
    "$DOCUMENTS": DOCUMENTS,
}
PROGRAMS = [
    json.loads(path.read_text("utf-8"))
    for path in sorted((Path(__file__).parent / "fixtures").glob("*.json"))
]
CALLS = [
    pytest.param(call, id=f"{program['program']}: {call['what']}")
    for program in PROGRAMS
    for call in program["calls"]
]


@dataclass(frozen=True)
class Plain:
    """A key, and what the server answers without any program between."""

    key: str
    vectors: np.ndarray
    ranking: list[tuple[int, float]]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=120) as bare:
        yield bare


@pytest.fixture(scope="module")
def plain(server: Server) -> Plain:
    key = str(server.mint(name="programs")["key"])
    with server.client(key) as ours:
        data = ours.post("/v1/embeddings", json={"model": MODEL, "input": TEXTS}).json()["data"]
        body = {"model": RERANK, "query": QUERY, "documents": DOCUMENTS}
        results = ours.post("/v1/rerank", json=body).json()["results"]
    vectors = np.array([each["embedding"] for each in data])
    return Plain(key, vectors, [(each["index"], each["relevance_score"]) for each in results])


def filled(value: Any, key: str) -> Any:
    """A fixture's value with its placeholders replaced."""
    if isinstance(value, dict):
        return {name: filled(each, key) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, key) for each in value]
    if not isinstance(value, str):
        return value
    found = VALUES.get(value)
    if found is not None:
        return found
    return value.replace("$KEY", key).replace("$RERANK_MODEL", RERANK).replace("$MODEL", MODEL)


def read(answer: Any, path: str) -> Any:
    """What stands at `data[].embedding`, say; at the empty path, all of it."""
    for name in filter(None, path.split(".")):
        of_each = isinstance(answer, list)
        found = (
            [each[name.removesuffix("[]")] for each in answer]
            if of_each
            else answer[name.removesuffix("[]")]
        )
        answer = found
    return answer


def alike(got: Any, wanted: np.ndarray) -> None:
    vectors = np.array(got, dtype=float)
    assert vectors.shape == wanted.shape
    assert np.abs(vectors - wanted).max() <= 1e-3


def judge(reads: dict[str, Any], body: Any, plain: Plain) -> None:
    """Read an answer as the program does."""
    if "vectors" in reads:
        alike(read(body, reads["vectors"]), plain.vectors)
    if "vector" in reads:
        alike(read(body, reads["vector"]), plain.vectors[0])
    if "encoded" in reads:
        got = [
            np.frombuffer(base64.b64decode(each), "<f4") for each in read(body, reads["encoded"])
        ]
        wanted = plain.vectors[:1] if len(got) == 1 else np.tile(plain.vectors, (len(got) // 4, 1))
        alike(got, wanted)
    if "ranking" in reads:
        how = reads["ranking"]
        rows = read(body, how["of"])
        wanted = plain.ranking[: how.get("top_n")]
        assert [row[how["index"]] for row in rows] == [index for index, _ in wanted]
        for row, (_, score) in zip(rows, wanted, strict=True):
            assert math.isclose(row[how["score"]], score, abs_tol=1e-3)
    for path in reads.get("texts", []):
        found = read(body, path)
        assert found
        assert all(
            isinstance(each, str) for each in (found if isinstance(found, list) else [found])
        )
    for path in reads.get("numbers", []):
        assert isinstance(read(body, path), int | float)
    for path, words in reads.get("says", {}).items():
        assert words in read(body, path)


@pytest.mark.parametrize("call", CALLS)
def test_a_program_can_read_its_answer(
    call: dict[str, Any], client: httpx2.Client, plain: Plain
) -> None:
    request = filled(call["request"], plain.key)
    sent = json.dumps(request["body"]).encode() if "body" in request else None
    got = client.request(
        request["method"], request["path"], headers=request["headers"], content=sent
    )
    assert got.status_code == call["status"], got.text
    if "status" not in call["reads"]:
        judge(call["reads"], got.json(), plain)


def test_every_program_says_where_its_calls_were_read() -> None:
    assert {"Continue", "Open WebUI", "RAGFlow"} <= {each["program"] for each in PROGRAMS}
    for program in PROGRAMS:
        assert " of " in program["source"]
        for call in program["calls"]:
            assert call["reads"], call["what"]
