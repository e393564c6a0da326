"""Engines: ours beside ONNX Runtime and torch on the same shapes, without HTTP.

    python -m tests.bench.engines --folder DIR [--seconds S] [--rounds N]

DIR is infinity's, as `tests.bench.peers infinity` has made it. Each engine has all cores: the others
as many threads in one batch, ours as its tuning says (a batch for each worker, and for one text
alone one batch on all threads). OpenVINO is not among them.
"""

import argparse
import json
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np

from appliance import machine
from appliance.catalog.catalog import load, shipped_path
from appliance.core.clock import SystemClock
from appliance.engine.backend import Backend
from appliance.engine.llama.library import kernels
from appliance.engine.loader import LlamaLoader
from appliance.sequences.sequence import TokenSequence
from appliance.settings import EngineSettings
from tests.server import EMBED

SHAPES = {"16 x 16": (16, 16), "32 x 64": (32, 64), "1 x 16": (1, 16)}
"""Texts and tokens of each."""
VOCABULARY = 30_000
NS_PER_MS = 1e6


def sequences(texts: int, tokens: int) -> list[TokenSequence]:
    rng = np.random.default_rng(1)
    rows = rng.integers(1000, VOCABULARY, (texts, tokens)).astype(np.int32)
    return [TokenSequence(row, tokens, truncated=False) for row in rows]


def ours(seconds: float, rounds: int) -> dict[str, float]:
    """Return the milliseconds of a batch of each shape, all workers together."""
    clock, cores = SystemClock(), machine.cores()
    spec = load(shipped_path(), Path("none.toml"), Path()).find(EMBED)
    loader = LlamaLoader(EngineSettings(calibrate=False), cores=cores, tunings=None, clock=clock)
    model = loader.open_model(spec)
    tuning, limits = model.tuning, model.weights.limits
    backends = [
        model.weights.open_backend(
            tuning.worker_limits(limits, worker=worker), flash_attention=tuning.attention(limits)
        )
        for worker in range(tuning.workers)
    ]

    def batches_a_second(backend: Backend, texts: int, tokens: int, threads: int) -> float:
        size = max(1, tuning.max_batch_tokens // tokens)
        given = sequences(texts, tokens)
        parts = [given[at : at + size] for at in range(0, texts, size)]
        began_ns, done = clock.monotonic_ns(), 0
        while not done or clock.monotonic_ns() - began_ns < seconds * 1000 * NS_PER_MS:
            for part in parts:
                backend.compute(part, threads=threads)
            done += 1
        return done / (clock.monotonic_ns() - began_ns) * 1000 * NS_PER_MS

    found: dict[str, float] = {}
    with ThreadPoolExecutor(len(backends)) as pool:
        for name, (texts, tokens) in SHAPES.items():
            alone = texts == 1
            used = backends[:1] if alone else backends
            threads = tuning.threads_alone if alone else tuning.threads
            rates = []
            for _ in range(rounds + 1):
                work = [pool.submit(batches_a_second, b, texts, tokens, threads) for b in used]
                rates.append(sum(each.result() for each in work))
            found[name] = 1000 / statistics.median(rates[1:])
    for backend in backends:
        backend.close()
    model.weights.close()
    return found


def theirs(folder: Path, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    model = next(folder.glob("**/model.onnx")).parent
    asked = {
        "model": str(model),
        "fused": str(next(folder.glob("**/model_optimized.onnx"))),
        "threads": machine.cores(),
        "seconds": seconds,
        "rounds": rounds,
        "shapes": SHAPES,
    }
    done = subprocess.run(
        [folder / "bin/python", Path(__file__).with_name("raw.py")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = {f"ours ({kernels()})": ours(asked.seconds, asked.rounds)}
    found |= theirs(asked.folder, asked.seconds, asked.rounds)
    click.echo(f"{machine.cores()} threads; tokens a second, and ms of one text of 16 tokens")
    for engine, times in found.items():
        cells = []
        for name, (texts, tokens) in SHAPES.items():
            rate = texts * tokens / times[name] * 1000
            cells.append(f"{times[name]:6.2f} ms" if texts == 1 else f"{rate:8.0f}")
        click.echo(f"{engine:15} {' '.join(cells)}")


if __name__ == "__main__":
    main()
