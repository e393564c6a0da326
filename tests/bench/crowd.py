"""Ten models under a memory budget that fits three, called at random by 16 clients.

    .venv/bin/python -m tests.bench.crowd [--minutes 10] [--fake]

A server of its own, in a temporary folder, with ten copies of the starter model. Nothing may fail
but as documented (503 `model_warming`), the memory that models take may never pass the budget, and
every call must end.
"""

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from appliance.catalog.catalog import STARTER
from tests.money.audit import Books
from tests.processes import resident
from tests.server import Server, free_port

MODELS = 10
CLIENTS = 16
FIT = 3
LOOK_EVERY_S = 0.05


@dataclass
class Seen:
    """What happened."""

    ends: Counter[tuple[int, str]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    taken_max: int = 0
    resident_max: int = 0
    rss_max: int = 0
    loads: int = 0
    errors: list[str] = field(default_factory=list)


def prepare(folder: Path) -> Server:
    """Return a stopped server with ten models."""
    server = Server(folder / "data")
    [starter] = STARTER.glob("*.gguf")
    for number in range(MODELS):
        end = server.cli("models", "add", str(starter), "--id", f"crowd-{number}")
        assert end.returncode == 0, end.stderr
    return server


def memory_of_one(server: Server, *flags: str) -> int:
    """Return the bytes that one of the models is said to take."""
    server.start(*flags)
    with server.admin() as admin:
        size = admin.post("/engines/load", json={"id": "crowd-0"}).json()["bytes"]
    server.stop()
    return int(size)


def crowd(server: Server, seconds: float, budget: int, *flags: str) -> Seen:
    """Let 16 clients call at random for so many seconds."""
    seen, stop = Seen(), threading.Event()
    server.start(*flags, env={"GIGAROUTER_ENGINE_MEMORY_MB": str(budget // 1_000_000)})
    key = str(server.mint()["key"])
    threads = [
        threading.Thread(target=_client, args=(server, key, number, stop, seen))
        for number in range(CLIENTS)
    ]
    threads.append(threading.Thread(target=_watch, args=(server, stop, seen)))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a call never ended"
    seen.loads = server.log.read_text().count("is loaded in")
    assert server.stop() == 0
    return seen


def _client(server: Server, key: str, number: int, stop: threading.Event, seen: Seen) -> None:
    chance = random.Random(number)
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=120) as client:
        while not stop.is_set():
            body = {
                "model": f"crowd-{chance.randrange(MODELS)}",
                "input": f"text {chance.random()}",
            }
            wait = {"prefer": "wait=10"} if chance.random() < 0.7 else {"prefer": "wait=0"}
            began = time.monotonic()
            try:
                answer = client.post("/v1/embeddings", json=body, headers=wait)
            except httpx2.HTTPError as error:
                seen.errors.append(repr(error))
                continue
            seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)
            code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
            seen.ends[answer.status_code, code] += 1
            if answer.status_code == 503:
                stop.wait(min(1.0, float(answer.headers["retry-after"])))


def _watch(server: Server, stop: threading.Event, seen: Seen) -> None:
    assert server.process is not None
    with server.admin() as admin:
        while not stop.wait(LOOK_EVERY_S):
            found = admin.get("/engines").json()
            seen.taken_max = max(seen.taken_max, found["memory_taken"])
            loaded = sum(each["state"] == "loaded" for each in found["data"])
            seen.resident_max = max(seen.resident_max, loaded)
            seen.rss_max = max(seen.rss_max, resident(server.process.pid))


def verdict(seen: Seen, budget: int) -> list[str]:
    """Return what went wrong."""
    allowed = {(200, ""), (503, "model_warming")}
    found = [f"{end}: {count}" for end, count in seen.ends.items() if end not in allowed]
    found += seen.errors[:5]
    if seen.taken_max > budget:
        found.append(f"{seen.taken_max} bytes taken, {budget} allowed")
    if not seen.ends[200, ""]:
        found.append("no call was served")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--fake", action="store_true")
    options = parser.parse_args()
    flags = ("--fake",) if options.fake else ()
    with tempfile.TemporaryDirectory() as folder:
        server = prepare(Path(folder))
        one = memory_of_one(server, *flags)
        budget = (FIT * one // 1_000_000 + 1) * 1_000_000
        server.port = free_port()
        seen = crowd(server, options.minutes * 60, budget, *flags)
        books = Books(server.data_dir)
    wrong = verdict(seen, budget) + books.problems
    _say(f"{dict(seen.ends)}; slowest {seen.slowest_s:.1f} s; {seen.loads} loads")
    _say(
        f"a model takes {one / 1e6:.0f} MB; budget {budget / 1e6:.0f} MB; most taken "
        f"{seen.taken_max / 1e6:.0f} MB by {seen.resident_max} models; resident {seen.rss_max / 1e6:.0f} MB"
    )
    _say("nothing went wrong" if not wrong else f"WRONG: {wrong}")


def _say(text: str) -> None:
    print(text)  # noqa: T201 - for whoever measures


if __name__ == "__main__":
    main()
