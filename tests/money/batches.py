"""Batches that are killed in the middle: every line answered exactly once, and charged exactly once.

Owns the story, which a test plays small and `tests.bench.batches` at full size.
"""

import json
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from appliance.core import failpoint
from tests.money.audit import Books
from tests.server import EMBED, Server

ENDED = ("completed", "failed", "expired", "cancelled")
WAYS = ("any moment", *failpoint.OF_BATCHES[:2], "after_commit", "before_commit", "after_hold")
REFUSED_EVERY = 50
"""One line of so many asks for a model that is not there."""
WINDOW_S = 600.0
PLACE_S = 15.0


@dataclass
class Story:
    """A batch on its way through a server that is killed."""

    server: Server
    key: dict[str, object]
    lines: int
    batch: str = ""
    kills: int = 0

    def client(self) -> httpx2.Client:
        return self.server.client(str(self.key["key"]))

    def content(self) -> Iterator[bytes]:
        for number in range(1, self.lines + 1):
            model = "nobody/nothing" if number % REFUSED_EVERY == 0 else EMBED
            body = {"model": model, "input": f"text number {number}", "encoding_format": "base64"}
            line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/embeddings"}
            yield json.dumps({**line, "body": body}).encode() + b"\n"

    def order(self, folder: Path) -> None:
        path = folder / "requests.jsonl"
        with path.open("wb") as file:
            file.writelines(self.content())
        with self.client() as client, path.open("rb") as file:
            sent = client.post(
                "/v1/files", data={"purpose": "batch"}, files={"file": ("requests.jsonl", file)}
            )
            assert sent.status_code == 200, sent.text
            order = {"input_file_id": sent.json()["id"], "endpoint": "/v1/embeddings"}
            made = client.post("/v1/batches", json={**order, "completion_window": "24h"})
        assert made.status_code == 200, made.text
        self.batch = made.json()["id"]

    def look(self, client: httpx2.Client) -> dict[str, object]:
        return dict(client.get(f"/v1/batches/{self.batch}").raise_for_status().json())

    def until(self, done: int) -> None:
        """Return once so many lines are answered."""
        with self.client() as client:
            while True:
                seen = self.look(client)
                counts = seen["request_counts"]
                assert isinstance(counts, dict)
                if counts["completed"] + counts["failed"] >= done or seen["status"] in ENDED:
                    return
                time.sleep(0.02)

    def killed(self, way: str, moments: random.Random, flags: tuple[str, ...]) -> bool:
        """Kill the running server some way, and start it again; return whether it went that way.

        One that passes a place so seldom that the batch ends before is killed by us.
        """
        is_that_way = True
        if way == "any moment":
            time.sleep(moments.uniform(0, 0.3))
            self.server.kill()
        else:
            self.server.stop()
            env = {"GIGAROUTER_FAILPOINT": f"{way}:{moments.randint(1, 6)}"}
            with suppress(AssertionError):  # it was killed before it was seen
                self.server.start(*flags, env=env)
            assert self.server.process is not None
            try:
                assert self.server.process.wait(PLACE_S) == -signal.SIGKILL
            except subprocess.TimeoutExpired:
                self.server.kill()
                is_that_way = False
        self.kills += 1
        self.server.start(*flags)
        return is_that_way

    def ended(self, seconds: float = WINDOW_S) -> dict[str, object]:
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while (seen := self.look(client))["status"] not in ENDED:
                assert time.monotonic() < deadline, seen
                time.sleep(0.05)
        return seen

    def results(self, file_id: object) -> Iterator[dict[str, object]]:
        with (
            self.client() as client,
            client.stream("GET", f"/v1/files/{file_id}/content") as answer,
        ):
            assert answer.status_code == 200
            for line in answer.iter_lines():
                yield json.loads(line)

    def prove(self, seen: dict[str, object]) -> dict[str, int]:
        """Hold the results against the lines, and the books against the results."""
        refused = self.lines // REFUSED_EVERY
        counts = {"total": self.lines, "completed": self.lines - refused, "failed": refused}
        assert seen["status"] == "completed", seen
        assert seen["request_counts"] == counts
        answers: Counter[str] = Counter()
        tokens = 0
        for found in self.results(seen["output_file_id"]):
            answers[str(found["custom_id"])] += 1
            response = found["response"]
            assert isinstance(response, dict)
            assert response["status_code"] == 200
            tokens += response["body"]["usage"]["total_tokens"]
        for found in self.results(seen["error_file_id"]):
            answers[str(found["custom_id"])] += 1
        assert answers.keys() == {f"c{number}" for number in range(1, self.lines + 1)}
        assert set(answers.values()) == {1}
        books = Books(self.server.data_dir)
        assert books.problems == []
        assert books.undelivered == 0
        charged = batch_charges(self.server.data_dir)
        kept = charged - books.refunded.keys()
        assert len(kept) == self.lines - refused, (len(kept), self.lines - refused)
        # What was charged is what was answered, to the token: 4,000 picocredits for each.
        assert sum(books.charged[each] for each in kept) == tokens * 4_000
        return {"refunded": len(charged & books.refunded.keys()), "charges": len(kept)}


def batch_charges(data_dir: Path) -> set[str]:
    """Return the request ids of all charges at the batch price."""
    with closing(sqlite3.connect(f"file:{data_dir}/gigarouter.db?mode=ro", uri=True)) as books:
        rows = books.execute("SELECT request_id FROM transfers WHERE tier = 'batch'").fetchall()
    assert len(set(rows)) == len(rows)
    return {request_id for (request_id,) in rows}


def open_charges(data_dir: Path) -> int:
    """Return how many charges are for lines whose answers are not known to be written."""
    with closing(sqlite3.connect(f"file:{data_dir}/gigarouter.db?mode=ro", uri=True)) as books:
        [(count,)] = books.execute("SELECT COUNT(*) FROM undelivered WHERE batch IS NOT NULL")
    return int(count)
