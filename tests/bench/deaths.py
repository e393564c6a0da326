"""Deaths: a supervised server is killed in every way under load, and is back each time.

    python -m tests.bench.deaths [--rounds 100] [--clients 32] [--seed N] [--fake]

Each round sends one signal to the server (not to its supervisor) while clients call it without
pause: SIGKILL, SIGSEGV, SIGABRT and SIGBUS in turn; and where a control group can be made (as root,
version 1 of them), every fifth death is the kernel's own, of a server that has no memory left. Counts
connections that were refused, calls that were cut off, and how long it took until the next 200.
The supervisor is told to start it again without a pause (`restart_pause_s`). At the end the books are audited: each 200 that a client read was charged once.
Proves: no connection is refused, books are exact, and the next 200 comes within three seconds and
the time of a load.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import click
import httpx2

from tests.bench.load import median, percentile
from tests.money.audit import Books
from tests.server import EMBED, Server, child_of, is_over

SEED = 20_261_126
SIGNALS = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS")
OUT_OF_MEMORY = "no memory"
GROUPS = Path("/sys/fs/cgroup/memory")
GROUP_BYTES = 4 * 2**20
"""What a server may take more, once it is in the group that it dies in."""
BACK_S = 60.0
"""How long a server may take to answer again before the proof is given up."""
PAUSE_S = 0.05
"""Of a client whose call failed."""
AT_ONCE = {"GIGAROUTER_RESTART_PAUSE_S": "0"}
BODY = json.dumps({"model": EMBED, "input": "a short text"})


@dataclass
class Round:
    """One death."""

    name: str
    back_s: float


@dataclass
class Client:
    """Calls without pause, and knows what it was told."""

    server: Server
    key: str
    answered: list[str] = field(default_factory=list)
    """Request ids of answers with status 200 that were read whole."""
    last_s: float = 0.0
    """When the last call that was answered so had been sent."""
    refused: int = 0
    cut_off: int = 0
    statuses: set[int] = field(default_factory=set)

    def run(self, stop: threading.Event) -> None:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        while not stop.is_set():
            sent_s = time.monotonic()
            try:
                connection.request(
                    "POST", "/v1/embeddings", BODY, {"authorization": f"Bearer {self.key}"}
                )
                answer = connection.getresponse()
                answer.read()
            except ConnectionRefusedError:
                self.refused += 1
                time.sleep(PAUSE_S)
            except (OSError, HTTPException):
                self.cut_off += 1
                connection.close()
                time.sleep(PAUSE_S)
            else:
                self.statuses.add(answer.status)
                if answer.status == 200:
                    self.answered.append(str(answer.headers["x-request-id"]))
                    self.last_s = sent_s
                else:
                    time.sleep(PAUSE_S)
        connection.close()


def ways() -> list[str]:
    """Return the deaths that can be died here."""
    can_starve = os.access(GROUPS / "memory.limit_in_bytes", os.W_OK)
    return [*SIGNALS, OUT_OF_MEMORY] if can_starve else [*SIGNALS]


def starve(server: Server, pid: int) -> None:
    """Let a process take next to no memory from now on, and have it take some."""
    group = GROUPS / f"gigarouter-{pid}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(GROUP_BYTES))
    (group / "cgroup.procs").write_text(str(pid))
    content = json.dumps({"model": EMBED, "input": ["x" * 1_000] * 2_000, "user": "x" * 10_000_000})
    with suppress(httpx2.TransportError), server.client() as client:
        client.post("/v1/embeddings", content=content)


def kill(server: Server, name: str) -> int:
    """End the server under its supervisor; return the process that it was."""
    assert server.process is not None
    until = time.monotonic() + BACK_S
    while (child := child_of(server.process.pid)) is None:
        assert time.monotonic() < until, "no server runs"
        time.sleep(0.01)
    if name == OUT_OF_MEMORY:
        threading.Thread(target=starve, args=(server, child), daemon=True).start()
    else:
        os.kill(child, signal.Signals[name])
    return child


def measure(
    server: Server,
    clients: Sequence[Client],
    *,
    rounds: int,
    chance: random.Random,
    names: Sequence[str] = SIGNALS,
) -> list[Round]:
    """Kill a server so many times, in these ways in turn, while clients call it."""
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    found = []
    try:
        for number in range(rounds):
            name = names[number % len(names)]
            time.sleep(0.2 + chance.random() / 2)
            killed = kill(server, name)
            began = time.monotonic()
            # A process may still answer for a while after the signal that it dies of.
            while not is_over(killed):
                assert time.monotonic() - began < BACK_S, f"{name} did not end the server"
                time.sleep(0.001)
            over = time.monotonic()
            if name == OUT_OF_MEMORY:
                began = over
            # What was sent before may have been answered before, and be read only now.
            while not any(client.last_s > over for client in clients):
                assert time.monotonic() - began < BACK_S, f"not back after {name}"
                assert server.process is not None
                assert server.process.poll() is None, server.log.read_text()[-2000:]
                time.sleep(0.005)
            found.append(Round(name, time.monotonic() - began))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    return found


def problems(server: Server, clients: Sequence[Client]) -> list[str]:
    """Return what is wrong in the books of a stopped server, and what clients were told wrongly."""
    books = Books(server.data_dir)
    found = list(books.problems)
    answered = [request_id for client in clients for request_id in client.answered]
    found += [
        f"{each} was answered, and charged {books.charges[each]} times"
        for each in answered
        if books.charges[each] != 1
    ]
    if refused := sum(client.refused for client in clients):
        found.append(f"{refused} connections were refused")
    return found


def table(rounds: Sequence[Round], clients: Sequence[Client]) -> str:
    """Return the result in words."""
    lines = ["signal     deaths  next 200 p50      max"]
    for name in (*SIGNALS, OUT_OF_MEMORY):
        times = [each.back_s for each in rounds if each.name == name]
        if times:
            lines.append(f"{name:10}{len(times):7d}  {median(times):9.2f} s  {max(times):6.2f} s")
    answered = sum(len(client.answered) for client in clients)
    cut_off = sum(client.cut_off for client in clients)
    lines.append(
        f"\n{answered:,} calls answered, {cut_off:,} cut off, "
        f"{sum(client.refused for client in clients)} connections refused; "
        f"p95 of the next 200: {percentile([each.back_s for each in rounds], 0.95):.2f} s"
    )
    return "\n".join(lines)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--fake", action="store_true", help="without the engine")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gigarouter-deaths-") as folder:
        server = Server(Path(folder) / "data")
        try:
            server.start(*(("--fake",) if asked.fake else ()), supervise=True, env=AT_ONCE)
            clients = [Client(server, str(server.mint()["key"])) for _ in range(asked.clients)]
            rounds = measure(
                server, clients, rounds=asked.rounds, chance=random.Random(asked.seed), names=ways()
            )
            code = server.stop()
            wrong = problems(server, clients) + [f"exit code {code}"] * bool(code)
        finally:
            server.close()
            for group in GROUPS.glob("gigarouter-*"):
                group.rmdir()
    click.echo(table(rounds, clients))
    click.echo("\n".join(wrong) or "the books are exact; no connection was refused")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
