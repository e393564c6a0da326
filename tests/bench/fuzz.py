"""Fuzz: whatever is sent to any route, the server lives, says no 500, and holds nobody up.

    python -m tests.bench.fuzz [--requests 100000] [--seed N] [--route TEXT]... [--connections 8]
                               [--fake]

Every registered route gets so many requests: half of them bodies that were right and then had
fields dropped, doubled, renamed, or given values of other kinds or strange texts, half of them the
bytes of a whole request with bits flipped, pieces cut out, put twice or strange bytes between. All
come from a seed.
After each route the same process must answer a proper call. Prints for each route how many answers
of each class came; then the event loop's lag, as `/metrics` counts it. Proves: no death, no status
500 or above but 501 and 503 with a Retry-After, and 99.9 % of the loop's lags at most 50 ms.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.api.test_authorization import routes
from tests.appliance import bench
from tests.bench.load import own_server
from tests.server import EMBED, RERANK, Server

SEED = 20_261_126
ANSWER_S = 20.0
"""How long an answer may take before the connection is given up."""
RAW_S = 0.25
"""The same of a request that was broken: the server may rightly wait for its rest."""
READ_MAX = 1 << 20
LAG_S_MAX, LAG_SHARE = 0.05, 0.999
TEXTS_SHARE = 0.3
"""Of bodies that stay right but for their texts: those reach the engine."""
LAG = "gigarouter_event_loop_lag_seconds"
STREAMS = {"/admin/v1/events"}
"""Routes whose answers have no end: one is left after its head."""
EMPTY = ("a", "", " ", "\u0000", "\ud800", "\U0001f4a9", "\u202e", "é" * 50, "x" * 3_000, "[PAD]")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**63, -(2**63), 10**400),
    *([], {}, [None], [[]], {"a": {"b": []}}, [1, "a"], ["a"] * 50, [[["a"]]]),
    *EMPTY,
)
BODIES: dict[str, dict[str, Any]] = {
    "embeddings": {
        "model": EMBED,
        "input": ["a cat", "a dog"],
        "encoding_format": "base64",
        "dimensions": 384,
        "truncate": True,
        "input_type": "query",
        "user": "u",
    },
    "cohere": {
        "model": EMBED,
        "texts": ["a cat", "a dog"],
        "input_type": "search_query",
        "embedding_types": ["float", "int8", "ubinary"],
        "truncate": "START",
    },
    "tei": {
        "inputs": ["a cat", "a dog"],
        "normalize": True,
        "truncate": True,
        "truncation_direction": "left",
        "prompt_name": "query",
    },
    "ollama": {"model": EMBED, "input": ["a cat", "a dog"], "prompt": "a cat", "truncate": False},
    "batches": {
        "input_file_id": "file-x",
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        "metadata": {"a": "b"},
    },
    "rerank": {
        "model": RERANK,
        "query": "a cat",
        "documents": ["one", {"text": "two"}],
        "top_n": 1,
        "return_documents": True,
        "raw_scores": False,
        "max_tokens_per_doc": 10,
        "rank_fields": ["text"],
    },
    "tokenize": {
        "model": EMBED,
        "input": ["a cat", "a dog"],
        "add_special_tokens": True,
        "return_tokens": True,
        "with_pieces": True,
    },
    "detokenize": {"model": EMBED, "tokens": [[101, 5, 102], [7]], "skip_special_tokens": False},
    "decode": {"ids": [[101, 5, 102], [7]], "skip_special_tokens": True},
    "segment": {
        "model": EMBED,
        "text": "# A title\n\nOne sentence. Another one.",
        "by": "markdown",
        "tokens_max": 16,
        "overlap": 3,
        "return_text": True,
        "return_chunks": True,
        "max_chunk_length": 40,
    },
    "keys": {"name": "n", "credit": "1", "rpm": 5, "expires": "1d", "scopes": ["infer"]},
    "admin": {
        "id": "no/such",
        "path": "no/such.gguf",
        "task": "rerank",
        "realtime": "1",
        "names": ["a"],
        "amount": "1",
        "name": "x",
        "pooling": "cls",
        "replace": True,
        "overlap": "1h",
        "expires": "1d",
        "repo": "no/such",
        "on": True,
        "long": False,
    },
}
HEADERS = (
    *(b"X-Tier: batch", b"X-Tier: \xff", b"Prefer: wait=0", b"Prefer: wait=x, wait=9999"),
    *(b"X-Dry-Run: true", b"Idempotency-Key: k", b"Content-Type: text/plain", b"Expect: y"),
    *(b"Content-Encoding: gzip", b"Accept: */*", b"Connection: close", b"X-Request-Id: \x01"),
    *(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: evil", b"Range: bytes=0-"),
)
NOISE = (
    b"\x00",
    b"\r\n",
    b"\r\n\r\n",
    b":",
    b" ",
    b"\xff\xfe",
    b"%2f",
    b"{",
    b"0\r\n\r\n",
    b"A" * 9_000,
)


@dataclass
class Found:
    """What came of one route's requests."""

    method: str
    path: str
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    """0: the connection was closed, or held, without an answer."""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where requests go, and as whom."""

    port: int
    key: str
    admin: str

    def secret(self, path: str) -> str:
        return self.admin if path.startswith(("/admin/", "/metrics")) else self.key


# -- requests -------------------------------------------------------------------------------------


def template(path: str) -> dict[str, Any]:
    """Return a body that the route would take."""
    if path.startswith("/api/"):
        return BODIES["ollama"]
    if path.endswith(("v1/embed", "v2/embed")):
        return BODIES["cohere"]
    if path == "/" or path.endswith(("/embed", "{name:str}")):
        return BODIES["tei"]
    for word in ("batches", "embeddings", "rerank", "detokenize", "tokenize", "decode", "segment"):
        if path.endswith((word, f"{word}ing")):
            return BODIES[word]
    return BODIES["keys" if path == "/admin/v1/keys" else "admin"]


def strange(chance: random.Random) -> str:
    """Return a text that is valid and unlike what people write."""
    pieces = (
        *("a", " ", "\n", "0", ".", "é", "漢", "한", "\u0301", "\u202e", "\U0001f469\u200d", "ﷺ"),
        *("[CLS]", "[SEP]", "</s>", "<|im_end|>", "##", "\u0000", "\ufeff", "\u00ad", "\ue000"),
    )
    return chance.choice(pieces) * chance.choice((1, 2, 33, 300)) + chance.choice(pieces) * 3


def with_strange_texts(chance: random.Random, whole: dict[str, Any]) -> dict[str, Any]:
    """Return the body as it is, but for its texts."""
    changed = {
        "input": lambda: [strange(chance) for _ in range(chance.randint(1, 4))],
        "inputs": lambda: [strange(chance) for _ in range(chance.randint(1, 4))],
        "texts": lambda: [strange(chance) for _ in range(chance.randint(1, 4))],
        "prompt": lambda: strange(chance),
        "query": lambda: strange(chance),
        "documents": lambda: [strange(chance) for _ in range(chance.randint(1, 4))],
        "name": lambda: strange(chance),
    }
    return {name: changed[name]() if name in changed else value for name, value in whole.items()}


def mutated(chance: random.Random, whole: dict[str, Any]) -> dict[str, Any]:
    """Return the body with its texts changed, or with one to three fields changed."""
    if chance.random() < TEXTS_SHARE:
        return with_strange_texts(chance, whole)
    body = dict(whole)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(body) or ["model"])
        match chance.randrange(5):
            case 0:
                body.pop(name, None)
            case 1:
                body[name.upper()] = body.pop(name, 1)
            case 2:
                body[name] = [body.get(name)] * chance.randint(0, 40)
            case _:
                body[name] = chance.choice(VALUES)
    return body


def concrete(chance: random.Random, path: str) -> str:
    """Return the path with something in the place of its parameters."""
    value = chance.choice(("x", EMBED, "a%2Fb", "%00", "%ff", "..%2f..", "a" * 300, "gr-AbCd"))
    if value == EMBED and "{owner" in path:
        return re.sub(r"\{owner[^/]*\}/\{[^}]*\}", value, path)
    return re.sub(r"\{[^}]*\}", lambda _: value, path)


def head(method: str, path: str, secret: str, extra: Sequence[bytes], length: int) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"Host: 127.0.0.1",
        f"Authorization: Bearer {secret}".encode(),
        b"Content-Length: %d" % length,
        *extra,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request(chance: random.Random, method: str, path: str, secret: str) -> tuple[bytes, bool]:
    """Return the bytes of a request, and whether its framing is as it should be."""
    text = json.dumps(mutated(chance, template(path))).encode()
    body = b"" if method in {"GET", "HEAD"} else text
    where = concrete(chance, path)
    if method == "GET" and chance.random() < 0.5:  # every other one
        where += "?" + chance.choice(
            ("span=60", "span=x", "key=", "by=day&since=%00", "a" * 500, "%")
        )
    extra = [chance.choice(HEADERS[:8])] if chance.random() < 0.3 else []
    sent = head(method, where, secret, extra, len(body)) + body
    if chance.random() < 0.5:  # the other half
        return sent, True
    return broken(chance, sent), False


def broken(chance: random.Random, sent: bytes) -> bytes:
    """Return the bytes with one to four of them changed, cut out, doubled or put between."""
    data = bytearray(sent)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) or 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 30)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 60)]
            case 3:
                data[at:at] = chance.choice(NOISE)
            case _:
                line = data.find(b"\r\n") + 2
                data[line:line] = chance.choice(HEADERS) + b"\r\n"
    return bytes(data)


# -- sending --------------------------------------------------------------------------------------


class Connection:
    """A connection that is opened when one is needed, and kept while answers are whole."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes, *, is_whole: bool, is_stream: bool) -> tuple[int, bytes]:
        """Return status and head of the answer; (0, b"") if there was none."""
        try:
            async with asyncio.timeout(ANSWER_S if is_whole else RAW_S):
                return await self._ask(sent, is_kept=is_whole and not is_stream)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            self.close()
            return 0, b""

    async def _ask(self, sent: bytes, *, is_kept: bool) -> tuple[int, bytes]:
        if self._open is None:
            self._open = await asyncio.open_connection("127.0.0.1", self._port, limit=READ_MAX)
        reader, writer = self._open
        writer.write(sent)
        await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        while answer.startswith(b"HTTP/1.1 100"):
            answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", answer, re.IGNORECASE)
        if is_kept and length is not None and b"connection: close" not in answer.lower():
            await reader.readexactly(int(length[1]))
        else:
            self.close()
        return int(answer.split(b" ", 2)[1]), answer

    def close(self) -> None:
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None


def verdict(status: int, answer: bytes) -> str | None:
    """Return what is wrong with an answer, or None."""
    if status == 503 and b"retry-after: " in answer.lower():
        return None
    if status < 500 or status == 501:  # a transfer coding that is not done here
        return None
    return answer[:200].decode("latin-1")


async def fuzzed(
    target: Target, method: str, path: str, *, seed: int, requests: int, connections: int
) -> Found:
    """Send so many requests to a route."""
    found = Found(method, path)

    async def send(number: int) -> None:
        chance = random.Random(f"{seed} {method} {path} {number}")
        connection = Connection(target.port)
        for _ in range(requests // connections + (number < requests % connections)):
            sent, is_whole = request(chance, method, path, target.secret(path))
            status, answer = await connection.ask(
                sent, is_whole=is_whole, is_stream=path in STREAMS
            )
            found.sent += 1
            found.statuses[status] += 1
            if (wrong := verdict(status, answer)) is not None and len(found.wrong) < 10:
                found.wrong.append(f"{sent[:2_000]!r} -> {wrong}")
        connection.close()

    await asyncio.gather(*(send(number) for number in range(connections)))
    await asyncio.sleep(0.01)  # what was aborted is closed by then
    return found


async def registered() -> list[tuple[str, str]]:
    """Return every (method, path) that a server has."""
    with tempfile.TemporaryDirectory() as folder:
        async with bench(Path(folder) / "data", preload=False) as on:
            return sorted(routes(on.appliance.app))


def lags(server: Server) -> tuple[int, int]:
    """Return how many looks at the event loop were made, and how many were in time."""
    token = (server.data_dir / "admin.token").read_text().strip()
    text = httpx2.get(
        f"{server.url}/metrics", headers={"authorization": f"Bearer {token}"}, timeout=60
    ).text
    samples = {
        sample.labels.get("le", ""): int(sample.value)
        for family in text_string_to_metric_families(text)
        if family.name == LAG
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    return samples["+Inf"], samples[str(LAG_S_MAX)]


def run(
    server: Server, only: Sequence[str], *, seed: int, requests: int, connections: int
) -> list[Found]:
    """Fuzz each route, and see after each that the same process serves.

    Raises:
        AssertionError: the process died, or a proper call is not answered.
    """
    key = str(server.mint("fuzz")["key"])
    target = Target(server.port, key, (server.data_dir / "admin.token").read_text().strip())
    found = []
    for method, path in asyncio.run(registered()):
        if only and not any(word in path for word in only):
            continue
        began = time.monotonic()
        found.append(
            asyncio.run(
                fuzzed(target, method, path, seed=seed, requests=requests, connections=connections)
            )
        )
        assert server.process is not None
        assert server.process.poll() is None, f"dead after {method} {path}"
        with server.client(key) as proper:
            answer = proper.post("/v1/embeddings", json={"model": EMBED, "input": "a"})
        assert answer.status_code == 200, f"after {method} {path}: {answer.text}"
        click.echo(row(found[-1], time.monotonic() - began))
    return found


def row(found: Found, seconds: float) -> str:
    """Return a line of the table."""
    classes = Counter(dict.fromkeys(("2xx", "4xx", "5xx", "none"), 0))
    for status, count in found.statuses.items():
        classes[f"{status // 100}xx" if status else "none"] += count
    counts = "  ".join(f"{name} {count:6,d}" for name, count in sorted(classes.items()))
    return (
        f"{found.method:7}{found.path:42}{found.sent:8,d}  {counts}  "
        f"wrong {len(found.wrong)}  {seconds:5.0f} s"
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000, help="to each route")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--route", action="append", default=[], help="those that hold this text")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--fake", action="store_true", help="without the engine")
    asked = parser.parse_args()
    with own_server(*(("--fake",) if asked.fake else ()), calibrate=False) as server:
        before = lags(server)
        found = run(
            server,
            asked.route,
            seed=asked.seed,
            requests=asked.requests,
            connections=asked.connections,
        )
        after = lags(server)
    looks, in_time = after[0] - before[0], after[1] - before[1]
    share = in_time / looks if looks else 1.0
    click.echo(
        f"\nevent loop: {looks:,} looks, {share:.3%} of them at most {LAG_S_MAX * 1000:.0f} ms late"
    )
    wrong = [line for each in found for line in each.wrong]
    click.echo("\n".join(wrong[:20]) or f"no 500 in {sum(each.sent for each in found):,} requests")
    return 1 if wrong or share < LAG_SHARE else 0


if __name__ == "__main__":
    sys.exit(main())
