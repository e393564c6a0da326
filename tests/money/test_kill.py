"""kill -9 under load, again and again, on one data directory.

At a random moment, and at each named failpoint in turn. `KILLS` says how often (80 unless the
environment says otherwise), `KILL_SEED` which random moments.
"""

import json
import os
import random
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx2

from appliance.core import failpoint
from appliance.core.units import picocredits
from tests.money.audit import Books
from tests.server import EMBED, RERANK, Server

KILLS = int(os.environ.get("KILLS", "80"))
SEED = int(os.environ.get("KILL_SEED", "8"))
CLIENTS = 8
LOAD_SECONDS_MAX = 0.4
TOP_UP = "0.000001"
WAYS = ("any moment", *failpoint.NAMES)
REACHED_MAX = 40
"""How often a failpoint is passed at most before it kills."""
BODIES = (
    ("/v1/embeddings", {"model": EMBED, "input": "a short text"}),
    ("/v1/embeddings", {"model": EMBED, "input": ["several", "texts of", "different length"] * 8}),
    ("/v1/rerank", {"model": RERANK, "query": "q", "documents": ["a", "b", "c", "d"]}),
)


@dataclass
class Journal:
    """What one client was promised: `x-request-id` and `x-cost` of each 200 that it read whole."""

    path: Path
    attempts: int = 0
    cut_off: int = 0
    """Calls whose answer the kill took away."""

    def note(self, request_id: str, cost: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{request_id} {cost}\n")

    def promises(self) -> dict[str, int]:
        if not self.path.exists():
            return {}
        lines = self.path.read_text().splitlines()
        found = {line.split()[0]: picocredits(line.split()[1]) for line in lines}
        assert len(found) == len(lines)
        return found


@dataclass
class Load:
    """Clients and an operator, at work until the server is gone."""

    server: Server
    keys: list[dict[str, object]]
    journals: list[Journal]
    top_ups_sent: int = 0
    top_ups_heard: int = 0
    statuses: set[int] = field(default_factory=set)

    def run(self, seconds: float | None) -> None:
        """Load the server and kill it in the middle; None: it kills itself."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._client, args=(number, stop)) for number in range(CLIENTS)
        ]
        threads.append(threading.Thread(target=self._operator, args=(stop,)))
        for thread in threads:
            thread.start()
        if seconds is None:
            assert self.server.process is not None
            assert self.server.process.wait(60) == -signal.SIGKILL
        else:
            time.sleep(seconds)  # the random moment itself; nothing waits for it
            self.server.kill()
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()

    def _client(self, number: int, stop: threading.Event) -> None:
        journal, key = self.journals[number], self.keys[number % len(self.keys)]["key"]
        path, body = BODIES[number % len(BODIES)]
        content, headers = json.dumps(body), {"authorization": f"Bearer {key}"}
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        while not stop.is_set():
            journal.attempts += 1
            try:
                connection.request("POST", path, content, headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, HTTPException):
                journal.cut_off += 1
                break
            self.statuses.add(answer.status)
            if answer.status == 200:
                journal.note(answer.headers["x-request-id"], answer.headers["x-cost"])
        connection.close()

    def _operator(self, stop: threading.Event) -> None:
        with self.server.admin() as admin:
            while not stop.is_set():
                self.top_ups_sent += 1
                try:
                    answer = admin.post(
                        f"/keys/{self.keys[0]['id']}/topup", json={"credit": TOP_UP}
                    )
                except httpx2.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                self.top_ups_heard += 1


def test_no_acknowledged_call_is_lost_or_charged_twice_by_a_kill(make_server, tmp_path):
    server = make_server()
    moments = random.Random(SEED)
    server.start("--fake")
    keys = [
        server.mint("prepaid", credit="1000"),
        server.mint("unlimited", credit="unlimited"),
        server.mint("nearly empty", credit="0.001", daily_budget="0.0009"),
    ]
    journals = [Journal(tmp_path / f"journal-{number}") for number in range(CLIENTS)]
    load = Load(server, keys, journals)
    kept_before = heard_before = 0
    for kill in range(KILLS):
        way = WAYS[kill % len(WAYS)]
        server.stop()
        if way == "any moment":
            server.start("--fake")
            load.run(moments.uniform(0, LOAD_SECONDS_MAX))
        else:
            times = moments.randint(1, REACHED_MAX)
            server.start("--fake", env={"GIGAROUTER_FAILPOINT": f"{way}:{times}"})
            load.run(None)
        if kill % 20 == 4:
            killed_while_it_starts(server, moments.uniform(0.2, 1.2))
        server.start("--fake")
        books = Books(server.data_dir)
        where = f"kill {kill} of seed {SEED}, {way}"
        assert books.problems == [], where
        assert books.undelivered == 0, where
        assert set(books.charges.values()) <= {1}, where
        assert set(books.refunded.values()) <= {"crash_refund"}, where
        promised: dict[str, int] = {}
        for journal in journals:
            promised |= journal.promises()
        charged = {request_id: books.charged.get(request_id) for request_id in promised}
        assert charged == promised, where
        # Heard of and given back all the same: what was delivered a moment before the kill.
        heard = promised.keys() - books.refunded.keys()
        kept = books.charged.keys() - books.refunded.keys()
        # Charged without an answer: at most the calls that the kill cut off on their way.
        unheard = (len(kept) - kept_before) - (len(heard) - heard_before)
        assert 0 <= unheard <= CLIENTS, where
        kept_before, heard_before = len(kept), len(heard)
        minted = 2  # the unlimited key was granted nothing
        assert load.top_ups_heard <= books.grants - minted <= load.top_ups_sent, where
    assert server.stop() == 0
    log = server.log.read_text()
    refunded = sum(map(int, re.findall(r"refunded (\d+) calls", log)))
    cut_off = sum(journal.cut_off for journal in journals)
    print(  # noqa: T201 - for whoever runs a thousand
        f"\n{KILLS} kills: {len(promised)} calls acknowledged, {cut_off} cut off, "
        f"{refunded} charges refunded "
        f"({len(promised) - len(heard)} of them acknowledged), "
        f"{len(kept) - len(heard)} charged unheard, {load.top_ups_heard} top-ups"
    )
    assert "Traceback" not in log
    # A start that was killed after it gave back and before it said so has said nothing.
    unsaid = len(books.refunded) - refunded
    assert 0 <= unsaid <= CLIENTS * sum(kill % 20 == 4 for kill in range(KILLS))
    # A kill that meets nobody at work proves nothing.
    assert len(promised) > KILLS
    assert cut_off > KILLS
    assert refunded > 0
    assert load.statuses <= {200, 402, 429}


def killed_while_it_starts(server: Server, seconds: float) -> None:
    """Start the server and kill it some time later, ready or not."""

    def strike():
        while (process := server.process) is None or process.poll() is not None:
            if gone.wait(0.001):
                return
        process.kill()

    gone = threading.Event()
    timer = threading.Timer(seconds, strike)
    timer.start()
    try:
        server.start("--fake")
    except AssertionError as error:
        assert "did not start" in str(error)  # noqa: PT017 - either end is right
    gone.set()
    timer.join()
    server.close()
