"""A large batch, killed again and again, with realtime calls beside it.

    .venv/bin/python -m tests.bench.batches [--lines 100000] [--kills 5] [--calls 300] [--fake]

Prints one line: what was answered and charged, how fast, and the p95 of realtime calls beside the
batch against alone. Ends with an error if a line is missing, answered twice or charged twice.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.money.batches import WAYS, Story
from tests.server import EMBED, Server

TEXT = "how do I reset my password"
PAUSE_S = 0.02
WARM = 200


def p95_ms(server: Server, key: str, calls: int) -> float:
    """Return the p95 of so many short realtime calls, one after the other."""
    took = []
    with server.client(key) as client:
        for number in range(calls):
            body = {"model": EMBED, "input": f"{TEXT} {number}"}
            began = time.perf_counter()
            answer = client.post("/v1/embeddings", json=body)
            took.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
            time.sleep(PAUSE_S)
    return sorted(took)[int(len(took) * 0.95)] * 1000


def measure(folder: Path, *, lines: int, kills: int, calls: int, fake: bool) -> dict[str, float]:
    """Play the story and return its figures."""
    flags = ("--fake",) if fake else ()
    moments = random.Random(8)
    server = Server(folder / "data").start(*flags)
    try:
        realtime = str(server.mint("realtime")["key"])
        p95_ms(server, realtime, calls // 5)
        alone = p95_ms(server, realtime, calls)
        story = Story(server, server.mint("batch", credit="100"), lines)
        began = time.perf_counter()
        story.order(folder)
        story.until(min(WARM, lines))
        beside = p95_ms(server, realtime, calls)
        for kill in range(kills):
            story.until(lines * (kill + 1) // (kills + 1))
            story.killed(WAYS[kill % len(WAYS)], moments, flags)
        seen = story.ended(36_000)
        took = time.perf_counter() - began
        figures = story.prove(seen)
        assert server.stop() == 0
    finally:
        server.close()
    return {
        **figures,
        "kills": story.kills,
        "lines_s": lines / took,
        "alone": alone,
        "beside": beside,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--fake", action="store_true", help="made-up vectors: the books alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            Path(folder),
            lines=options.lines,
            kills=options.kills,
            calls=options.calls,
            fake=options.fake,
        )
    print(  # noqa: T201 - for whoever measures
        f"{options.lines} lines, {found['kills']} kills: {found['charges']} charged once each, "
        f"{found['refunded']} refunded; {found['lines_s']:.0f} lines/s with the kills; "
        f"realtime p95 {found['alone']:.1f} ms alone, {found['beside']:.1f} ms beside the batch "
        f"(x {found['beside'] / found['alone']:.2f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
