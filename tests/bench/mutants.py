"""Mutated model files through the header's reader and the preflight: nothing may crash us.

    .venv/bin/python -m tests.bench.mutants [--count 1000] [--seed 1]

Tiny files of five kinds, each with bytes flipped, cut, doubled or written over, at random. Each
must end in time: refused by the header, refused by the preflight (also by a crash over there), or
passed.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.core.errors import ApplianceError
from appliance.engine.trial import HANG_S, Trial
from tests import decoders, encoders
from tests.decoders import write_decoder
from tests.models import write_tiny_gguf
from tests.unit.engine.test_screening import spec_of

KINDS: dict[str, Callable[[Path], Path]] = {
    "embedder": lambda path: write_tiny_gguf(path, seed=1),
    "bert": lambda path: write_tiny_gguf(path, seed=2, labels=1),
    "xlmr": lambda path: encoders.write_xlmr(path, encoders.xlmr_weights(seed=3)),
    "modern": lambda path: encoders.write_modern(path, encoders.modern_weights(seed=4)),
    "decoder": lambda path: write_decoder(path, decoders.weights(seed=5)),
}
HEADER_SHARE = 0.8
"""Of the changes, those within the first bytes, where the header is."""


@dataclass
class Seen:
    """How the mutants ended."""

    ends: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    crashes: list[str] = field(default_factory=list)


def mutated(content: bytes, header_bytes: int, chance: random.Random) -> bytes:
    """Return the file with something wrong in it."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        within = header_bytes if chance.random() < HEADER_SHARE else len(changed)
        at = chance.randrange(min(within, len(changed)))
        match chance.randrange(5):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + 8] = chance.choice((b"\xff" * 8, b"\0" * 8, chance.randbytes(8)))
            case 2:
                size = chance.randrange(1, 64)
                changed[at:at] = changed[at : at + size]
            case 3:
                del changed[at : at + chance.randrange(1, 64)]
            case 4:
                changed[at] = chance.randrange(256)
    return bytes(changed)


def run(folder: Path, count: int, seed: int) -> Seen:
    """Try so many mutants."""
    chance, seen = random.Random(seed), Seen()
    kinds = {}
    for name, write in KINDS.items():
        (folder / name).mkdir()
        spec = spec_of(write(folder / name / "tiny.gguf"))
        content = spec.path.read_bytes()
        kinds[name] = spec, content
    for number in range(count):
        name = sorted(kinds)[number % len(kinds)]
        spec, content = kinds[name]
        path = folder / "mutant.gguf"
        path.write_bytes(mutated(content, min(len(content), 12_000), chance))
        began = time.monotonic()
        try:
            trial = Trial(replace_path(spec, path))
            trial.run()
            reason = trial.report.reason
        except ApplianceError:
            seen.ends["refused by its header"] += 1
        else:
            if reason and "crashed" in reason:
                seen.crashes.append(f"{name} {number}: {reason}")
            end = (
                "passed"
                if reason is None
                else ("crashed over there" if "crashed" in reason else "refused by the preflight")
            )
            seen.ends[end] += 1
        seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)
    return seen


def replace_path(spec, path: Path):
    """Return an entry for another file."""
    import msgspec

    return msgspec.structs.replace(spec, path=path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = run(Path(folder), options.count, options.seed)
    _say(f"{dict(seen.ends)}; slowest {seen.slowest_s:.1f} s of {HANG_S:.0f} s")
    for crash in seen.crashes:
        _say(f"  {crash}")


def _say(text: str) -> None:
    print(text)  # noqa: T201 - for whoever measures


if __name__ == "__main__":
    main()
