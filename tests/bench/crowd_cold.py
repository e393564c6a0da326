"""Crowd, cold: what calls of cold, untried models cost a client of the starter model.

    python -m tests.bench.crowd_cold [--clients 4] [--rounds 3] [--seconds 20]

Each round has two phases on one server: a client of the starter alone, with short texts one after
the other, and the same beside a crowd, each of which calls models of its own in turn, and unloads
them again: untried ones first, and when there are no more of them, cold ones. The files are written for it, of some 45 MB each: XLM-RoBERTa's kind, which
ranks, and Qwen3's, which embeds. Goal: the starter's p95 beside the crowd is at most 1.5 times its
p95 alone.
"""

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx2

from tests import decoders, encoders
from tests.bench.load import ANSWER_SECONDS_MAX, MEASURED, median, percentile, text
from tests.server import EMBED, Server

SEED = 20_261_201
GOAL = 1.5
WORDS = 8
PAUSE_S_MAX = 0.05
"""Between two calls of the starter, drawn anew."""
WAIT_S = 30
XLMR = encoders.Shape(len(encoders.UNIGRAM), width=384, heads=6, inner=1536, blocks=6, context=512)
QWEN = decoders.Shape(width=384, heads=6, kv_heads=2, head=64, inner=1024, blocks=7, context=512)
ENTRY = """
[[model]]
id = "{name}"
task = "{task}"
file = "{name}.gguf"
max_input_tokens = 512
{more}
price = {{ unit = "{unit}", realtime = 0.008 }}
"""
RANKS = {
    "task": "rerank",
    "unit": "1k documents",
    "more": 'pooling = "rank"\nscores = "sigmoid"\narchitecture = "bert"',
}
EMBEDS = {
    "task": "embeddings",
    "unit": "1M tokens",
    "more": 'pooling = "last"\ndimensions = 384\narchitecture = "qwen3"',
}


@dataclass
class Round:
    """What the starter's client waited, in milliseconds, and what became of the crowd's calls."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        return percentile(self.beside, 0.95) / percentile(self.alone, 0.95)


def write_models(folder: Path, count: int, *, small: bool = False) -> list[tuple[str, str]]:
    """Write so many models and the catalogue's entries of them; return ids and tasks."""
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    xlmr = encoders.XLMR if small else XLMR
    qwen = decoders.TINY if small else QWEN
    ranks = encoders.write_xlmr(folder / "ranks.gguf", encoders.xlmr_weights(xlmr, seed=1), xlmr)
    embeds = decoders.write_decoder(folder / "embeds.gguf", decoders.weights(qwen, seed=2), qwen)
    found, document = [], "schema = 1\n"
    for number in range(count):
        name, source, entry = (
            (f"cold-{number}", embeds, dict(EMBEDS))
            if number % 2
            else (f"cold-{number}", ranks, dict(RANKS))
        )
        if small:
            entry["more"] = entry["more"].replace("384", str(qwen.width))
        shutil.copyfile(source, models / f"{name}.gguf")
        # What was found of a content holds for its copies: each is to be another one.
        with (models / f"{name}.gguf").open("ab") as file:
            file.write(name.encode())
        document += ENTRY.format(name=name, **entry)
        found.append((name, entry["task"]))
    (folder / "models.toml").write_text(document.replace("= 512", "= 128") if small else document)
    ranks.unlink()
    embeds.unlink()
    return found


def call(client: httpx2.Client, name: str, task: str, wait_s: int) -> str:
    """Call a cold model and return its status and error code."""
    path, body = (
        ("/v1/embeddings", {"model": name, "input": "the cat"})
        if task == "embeddings"
        else ("/v1/rerank", {"model": name, "query": "the cat", "documents": ["sat", "on the mat"]})
    )
    answer = client.post(path, json=body, headers={"prefer": f"wait={wait_s}"})
    code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
    return f"{answer.status_code} {code}".strip()


def starter(client: httpx2.Client, chance: random.Random, stop: threading.Event) -> list[float]:
    """Call the starter until told to stop; return what each call took, in milliseconds."""
    found = []
    while not stop.wait(chance.random() * PAUSE_S_MAX):
        began = time.perf_counter()
        body = {"model": EMBED, "input": text(chance, WORDS, WORDS)}
        answer = client.post("/v1/embeddings", json=body)
        if answer.status_code == 200:
            found.append((time.perf_counter() - began) * 1000)
    return found


def measure(
    server: Server, models: Sequence[tuple[str, str]], *, clients: int, rounds: int, seconds: float
) -> list[Round]:
    """Return each round; every round has models of its own, that nobody called before."""
    headers = {"authorization": f"Bearer {server.mint('crowd')['key']}"}
    found, chance = [], random.Random(SEED)
    share = len(models) // rounds
    with httpx2.Client(base_url=server.url, headers=headers, timeout=ANSWER_SECONDS_MAX) as client:
        for number in range(rounds):
            fresh = list(models[number * share : (number + 1) * share])
            one = Round()
            one.alone = _phase(client, chance, seconds)
            stop = threading.Event()
            crowd = [
                threading.Thread(
                    target=_member, args=(server, headers, fresh[place::clients], one, stop)
                )
                for place in range(clients)
            ]
            for thread in crowd:
                thread.start()
            one.beside = _phase(client, chance, seconds)
            stop.set()
            for thread in crowd:
                thread.join(ANSWER_SECONDS_MAX)
            _unload(server)
            found.append(one)
    return found


def _phase(client: httpx2.Client, chance: random.Random, seconds: float) -> list[float]:
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        return starter(client, chance, stop)
    finally:
        timer.cancel()


def _member(
    server: Server,
    headers: dict[str, str],
    own: list[tuple[str, str]],
    one: Round,
    stop: threading.Event,
) -> None:
    """Call one's own models in turn, each of which is cold: untried, or unloaded since its call."""
    with (
        httpx2.Client(base_url=server.url, headers=headers, timeout=ANSWER_SECONDS_MAX) as client,
        server.admin() as admin,
    ):
        for name, task in itertools.cycle(own):
            if stop.is_set():
                return
            end = call(client, name, task, WAIT_S)
            one.ends[end] += 1
            if end.startswith("503"):
                stop.wait(1)
            admin.post("/engines/unload", json={"id": name})


def _unload(server: Server) -> None:
    """Free what the crowd loaded, so that every round begins alike."""
    with server.admin() as admin:
        for each in admin.get("/engines").json()["data"]:
            if each["model"].startswith("cold-") and each["state"] == "loaded":
                admin.post("/engines/unload", json={"id": each["model"]})


def table(rounds: Sequence[Round]) -> str:
    """Return what a person wants to see."""
    lines = [
        f"{'round':6}{'alone p50':>10}{'p95':>8}{'beside p50':>12}{'p95':>8}{'ratio':>7}  crowd"
    ]
    for number, one in enumerate(rounds, start=1):
        numbers = [
            percentile(values, share) for values in (one.alone, one.beside) for share in (0.5, 0.95)
        ]
        ends = ", ".join(f"{count} x {end}" for end, count in sorted(one.ends.items()))
        lines.append(
            f"{number:<6}{numbers[0]:10.1f}{numbers[1]:8.1f}{numbers[2]:12.1f}{numbers[3]:8.1f}"
            f"{one.ratio:7.2f}  {ends or 'none answered'}"
        )
    ratio = median([one.ratio for one in rounds])
    lines.append(
        f"p95 beside the crowd is {ratio:.2f} times p95 alone (median of rounds); at most {GOAL}: "
        + ("yes" if holds(rounds) else "NO")
    )
    return "\n".join(lines)


def holds(rounds: Sequence[Round]) -> bool:
    """Return whether the goal is met; milliseconds, and one slow round is the machine's."""
    return median([one.ratio for one in rounds]) <= GOAL


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each phase")
    parser.add_argument("--models", type=int, default=8, help="of each round")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gigarouter-crowd-") as folder:
        server = Server(Path(folder) / "data")
        server.data_dir.mkdir(mode=0o700)
        models = write_models(server.data_dir, asked.models * asked.rounds)
        try:
            server.start(env=MEASURED)
            rounds = measure(
                server, models, clients=asked.clients, rounds=asked.rounds, seconds=asked.seconds
            )
            click.echo(table(rounds))
            if server.stop():
                click.echo("the server did not stop as it should", err=True)
                return 1
        finally:
            server.close()
    return 0 if holds(rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
