"""Load: what the slow proofs share: a server to measure, texts from a seed, calls and percentiles."""

import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from appliance.bench.workload import WORDS
from tests.server import Server

MEASURED = {"GIGAROUTER_ENGINE_CALIBRATE": "true"}
"""What an operator's server does, and what tests are spared."""
ANSWER_SECONDS_MAX = 600.0


@contextmanager
def own_server(
    *flags: str, calibrate: bool = True, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """Yield a server with the starter model, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="gigarouter-proof-") as folder:
        server = Server(Path(folder) / "data")
        try:
            yield server.start(*flags, env={**(MEASURED if calibrate else {}), **(env or {})})
            assert server.stop() == 0
            assert "Traceback" not in server.log.read_text()
        finally:
            server.close()


def client_of(url: str, key: str, *, connections: int = 4) -> httpx2.AsyncClient:
    """Return a client that keeps its connections."""
    return httpx2.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {key}"},
        timeout=ANSWER_SECONDS_MAX,
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def text(chance: random.Random, words_min: int, words_max: int) -> str:
    """Return so many common words, one token each."""
    return " ".join(chance.choices(WORDS, k=chance.randint(words_min, words_max)))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the median; NaN of none."""
    return statistics.median(values) if values else float("nan")
