"""A real Prometheus over a real server: every query of the dashboard, every alert.

    .venv/bin/python -m tests.bench.monitoring [--seconds 30]

Needs `prometheus` and `promtool` on the PATH (Debian: apt install prometheus). Ends with an error
if a query of the dashboard finds nothing, an alert cannot be evaluated or fires without cause,
promtool finds fault with the series, or what Prometheus has of money is not what the books have.
"""

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from tests.money.audit import Books
from tests.server import EMBED, RERANK, ROOT, Server, free_port

HERE = ROOT / "packaging/monitoring"
SCRAPE_S = 1
WARM_S = 5
READY_S = 30.0


class Prometheus:
    """One process with its own folder, which scrapes one server every second."""

    def __init__(self, folder: Path, target: str) -> None:
        """Start it and wait until it answers."""
        self.url = f"http://127.0.0.1:{free_port()}"
        config = (HERE / "prometheus.yml").read_text("utf-8")
        config = config.replace("127.0.0.1:8642", target)
        config = config.replace("scrape_interval: 15s", f"scrape_interval: {SCRAPE_S}s")
        (folder / "prometheus.yml").write_text(config, encoding="utf-8")
        shutil.copy(HERE / "alerts.yml", folder)
        with (folder / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'series'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + READY_S
        while True:
            try:
                httpx2.get(f"{self.url}/-/ready").raise_for_status()
            except httpx2.HTTPError:
                assert time.monotonic() < until, "Prometheus does not start"
                time.sleep(0.2)
            else:
                return

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression now."""
        answer = httpx2.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer.get("error"))
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Return the rules with what became of their evaluation."""
        groups = httpx2.get(f"{self.url}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(READY_S)


def load(server: Server, keys: list[str], seconds: float) -> None:
    """Call models, with refusals among the calls, until the time is over."""
    until = time.monotonic() + seconds

    def calls(key: str, number: int) -> None:
        with server.client(key) as client:
            while time.monotonic() < until:
                client.post("/v1/embeddings", json={"model": EMBED, "input": ["a b c"] * 5})
                body = {"model": RERANK, "query": "q", "documents": ["a", "b"]}
                client.post("/v1/rerank", json=body, headers={"x-tier": "batch"})
                if number == 0:
                    client.post("/v1/embeddings", json={"model": "nobody", "input": "a"})

    with ThreadPoolExecutor(len(keys)) as pool:
        for future in [pool.submit(calls, key, n) for n, key in enumerate(keys)]:
            future.result()


def queries() -> dict[str, str]:
    """Return every expression of the dashboard by its panel, its variables filled in."""
    panels = json.loads((HERE / "dashboard.json").read_text("utf-8"))["panels"]
    return {
        f"{panel['title']} {target['legendFormat']}": target["expr"]
        .replace("$__rate_interval", "10s")
        .replace("$instance", ".*")
        for panel in panels
        for target in panel.get("targets", ())
    }


def prove(folder: Path, seconds: float) -> str:
    """Play the story; return what was found."""
    server = Server(folder / "data").start()
    prometheus = None
    try:
        keys = [str(server.mint(f"n{n}", credit="5")["key"]) for n in range(3)]
        prometheus = Prometheus(folder, f"127.0.0.1:{server.port}")
        load(server, keys, WARM_S)
        time.sleep(2 * SCRAPE_S)
        load(server, keys, seconds)
        empty = [name for name, expression in queries().items() if not prometheus.query(expression)]
        assert not empty, f"no samples: {empty}"
        time.sleep(3 * SCRAPE_S)
        alerts = prometheus.alerts()
        wrong = [each["name"] for each in alerts if each["health"] == "err" or each["alerts"]]
        assert not wrong, f"alerts: {wrong}"
        charged = sum(
            int(float(each["value"][1]))
            for each in prometheus.query("gigarouter_charged_picocredits_total")
        )
        by_key = sum(
            int(float(each["value"][1]))
            for each in prometheus.query("gigarouter_key_charged_picocredits_total")
        )
        text = httpx2.get(f"{server.url}/metrics").text
        assert server.stop() == 0
    finally:
        server.close()
        if prometheus is not None:
            prometheus.close()
    books = Books(folder / "data")
    assert books.problems == []
    with closing(sqlite3.connect(folder / "data/gigarouter.db")) as connection:
        [(paid,)] = connection.execute("SELECT SUM(amount) FROM transfers WHERE kind = 'charge'")
    assert charged == by_key == paid, (charged, by_key, paid)
    lint = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    faults = [line for line in lint.stderr.splitlines() if "gigarouter_" in line]
    assert not faults, faults
    return (
        f"{len(queries())} queries and {len(alerts)} alerts over {text.count(chr(10)):,} lines: "
        f"all have samples, none fires; {charged:,} picocredits in both; promtool finds no fault"
    )


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(prove(Path(folder), chosen.seconds) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
