"""What the console costs: its start, its own processor time, and what the server loses to it.

    .venv/bin/python -m tests.bench.console [--seconds 10] [--rounds 3]

A server with the fake engine under load, with the console open in a terminal and without, in turn.
"""

import argparse
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from tests.server import EMBED, ROOT, Server

CLIENTS = 8
SIZE = (40, 120)


@contextmanager
def console(server: Server):
    """Run the console in a terminal of its own; yield its process and the seconds to its first paint."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tui", "--data-dir", str(server.data_dir)],
        cwd=ROOT,
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment,
        start_new_session=True,
    )
    os.close(child)
    drawn = b""
    while b"Throughput" not in drawn:
        drawn += os.read(parent, 65_536)
    painted = time.perf_counter() - began
    stop = threading.Event()
    reader = threading.Thread(target=_drain, args=(parent, stop))
    reader.start()
    try:
        yield process, painted
    finally:
        process.terminate()
        process.wait(30)
        stop.set()
        reader.join()
        os.close(parent)


def _drain(handle: int, stop: threading.Event) -> None:
    while not stop.is_set():
        if select.select([handle], [], [], 0.1)[0]:
            try:
                os.read(handle, 1 << 20)
            except OSError:
                return


def calls(server: Server, key: str, seconds: float) -> float:
    """Return calls a second of eight clients."""
    counts, stop = [0] * CLIENTS, threading.Event()

    def client(number: int) -> None:
        with server.client(key) as http:
            while not stop.is_set():
                body = {"model": EMBED, "input": f"text {number} {counts[number]}"}
                assert http.post("/v1/embeddings", json=body).status_code == 200
                counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start("--fake")
        key = str(server.mint()["key"])
        calls(server, key, 2)
        ratios, shares, paints = [], [], []
        for _ in range(options.rounds):
            without = calls(server, key, options.seconds)
            with console(server) as (process, painted):
                time.sleep(1)
                before = cpu_seconds(process.pid)
                ratios.append(calls(server, key, options.seconds) / without)
                shares.append((cpu_seconds(process.pid) - before) / options.seconds)
                idle = cpu_seconds(process.pid)
                time.sleep(options.seconds)
                quiet = (cpu_seconds(process.pid) - idle) / options.seconds
            paints.append(painted)
        server.stop()
    _say(
        f"first paint after {statistics.median(paints):.2f} s (the last of {len(paints)}: {paints[-1]:.2f} s)"
    )
    _say(f"its share of a core: {statistics.median(shares):.1%} under load, {quiet:.1%} at rest")
    _say(
        f"the server's calls with it, of those without: {statistics.median(ratios):.3f} ({without:.0f}/s)"
    )


def _say(text: str) -> None:
    print(text)  # noqa: T201 - for whoever measures


if __name__ == "__main__":
    main()
