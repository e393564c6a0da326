"""Files of real sizes: added, tried and served as their publishers promise.

    .venv/bin/python -m tests.bench.sizes [--only NAME] [--tokens N] [--folder DIR] [--gemma FILE]

Each file has random weights in the shape of a published model. It is added to a running server,
then called with a short text and with its longest one (of a decoder, one of `computed` tokens: for
the estimate of its memory, give it room for no more with `--memory-mb`). The vectors are held against a forward pass
of our own in float32, the memory that the server took against what it had said, and the length that
`GET /v1/models` names against the publisher's. Needs gigabytes of disk and memory, and minutes.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import httpx2
import numpy as np

from appliance.catalog.catalog import load, shipped_path
from appliance.core.clock import SystemClock
from appliance.engine.loader import LlamaLoader, TextEncoder
from appliance.sequences.sequence import frame_single
from appliance.settings import EngineSettings
from tests import decoders, encoders
from tests.processes import resident
from tests.server import Server

SHORT = "bread is eaten by somebody"
CALM = 0.25
"""What blocks add is made smaller by this: deep random networks would give all texts one vector."""


Write = Callable[[Path], Callable[[np.ndarray], np.ndarray]]
"""Writes a file; returns a function from tokens to the vector that they must get."""


@dataclass(frozen=True)
class Case:
    """A file to write, and what its vectors must be."""

    name: str
    promised: int
    """Tokens of its longest sequence."""
    computed: int
    """Tokens of the longest sequence that is computed here."""
    write: Write


def _calm(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name in tensors:
        if "attn_output" in name or "ffn_down" in name:
            tensors[name] *= np.float32(CALM)
    return tensors


def _halved(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the matrices in half precision; what stays in float32 is what converters leave so."""
    kept = ("position_embd", "token_types")
    return {
        name: array.astype(np.float16) if array.ndim > 1 and not name.startswith(kept) else array
        for name, array in tensors.items()
    }


def _xlmr(shape: encoders.Shape) -> Write:
    def write(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        tensors = _halved(_calm(encoders.xlmr_weights(shape, seed=1)))
        tensors = {name: array for name, array in tensors.items() if not name.startswith("cls")}
        encoders.write_xlmr(path, tensors, shape)
        return lambda tokens: encoders.xlmr_states(tensors, tokens, shape, precision=np.float32)[0]

    return write


def _modern(shape: encoders.Shape) -> Write:
    def write(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        tensors = _halved(_calm(encoders.modern_weights(shape, seed=1)))
        tensors = {name: array for name, array in tensors.items() if not name.startswith("cls")}
        encoders.write_modern(path, tensors, shape)

        def vector(tokens: np.ndarray) -> np.ndarray:
            states = encoders.modern_states(tensors, tokens, shape, precision=np.float32)
            return states.mean(axis=0)

        return vector

    return write


def _decoder(shape: decoders.Shape) -> Write:
    def write(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        kind = gguf.GGMLQuantizationType.Q8_0
        tensors = _calm(decoders.weights(shape, seed=1))
        tokenizer = encoders.widened(decoders.BPE, shape.vocabulary)
        decoders.write_decoder(path, tensors, shape, tokenizer=tokenizer, quantization=kind)
        for name, array in tensors.items():
            if array.ndim > 1:  # as the file has them, in half the memory
                stored = gguf.quants.quantize(array, kind)
                tensors[name] = gguf.quants.dequantize(stored, kind).astype(np.float16)
        return lambda tokens: decoders.reference(tensors, tokens, shape, precision=np.float32)[-1]

    return write


def _published(file: Path, shape: decoders.Shape) -> Write:
    """Return the writer of a file that somebody else has made: it copies it."""

    def write(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        shutil.copyfile(file, path)
        tensors = {
            tensor.name.removesuffix(".weight"): gguf.quants.dequantize(
                tensor.data, tensor.tensor_type
            ).astype(np.float16 if len(tensor.shape) > 1 else np.float32)
            for tensor in gguf.GGUFReader(path).tensors
        }
        return lambda tokens: decoders.reference(tensors, tokens, shape, precision=np.float32)[-1]

    return write


GEMMA = decoders.Shape(
    262_144,
    640,
    4,
    1,
    256,
    2048,
    18,
    32_768,
    rope_base=1_000_000.0,
    architecture="gemma3",
    window=512,
)
"""Gemma 3 270M."""
LARGE = {"width": 1024, "heads": 16, "inner": 4096, "blocks": 24, "context": 8192}
BASE = {"width": 768, "heads": 12, "inner": 3072, "blocks": 12, "context": 8192}
CASES = (
    Case("small-wide", 8192, 8192, _xlmr(encoders.Shape(250_002, width=64, context=8192))),
    Case("bert-base-8k", 8192, 8192, _xlmr(encoders.Shape(30_522, **BASE))),
    Case("bge-m3-like", 8192, 8192, _xlmr(encoders.Shape(250_002, **LARGE))),
    Case(
        "modernbert-base",
        8192,
        8192,
        _modern(encoders.Shape(50_368, 768, 12, 1152, 22, 8192, window=128)),
    ),
    Case(
        "qwen3-embedding-0.6b",
        32_768,
        4096,
        _decoder(
            decoders.Shape(151_669, 1024, 16, 8, 128, 3072, 28, 32_768, rope_base=1_000_000.0)
        ),
    ),
    Case("gemma-3-270m-like", 32_768, 2048, _decoder(GEMMA)),
)


def measured(case: Case, server: Server, folder: Path) -> dict[str, Any]:
    """Add a file, call it, and return what was found."""
    path = folder / f"{case.name}.gguf"
    expected = case.write(path)
    found: dict[str, Any] = {"model": case.name, "file_mb": path.stat().st_size // 10**6}
    began = time.monotonic()
    end = server.cli("models", "add", str(path), "--id", case.name)
    found["add_s"] = round(time.monotonic() - began, 1)
    path.unlink()
    if end.returncode:
        return found | {"refused": end.stderr.strip()[-300:]}
    view = httpx2.get(f"{server.url}/v1/models/{case.name}").json()
    found["promised"], found["says"] = case.promised, view["max_input_tokens"]
    encoder = _encoder(server, case.name)
    before = _resident(server)
    with server.admin() as admin:
        began = time.monotonic()
        loaded = admin.post("/engines/load", json={"id": case.name}, timeout=600).json()
        found["load_s"] = round(time.monotonic() - began, 1)
    longest = min(case.computed, found["says"])
    letters = np.random.default_rng(2).choice(list("abcdefghij klmnop"), 12 * longest)
    for name, text in (("short", SHORT), ("long", _cut("".join(letters), encoder, longest))):
        found |= {f"{name}_{key}": value for key, value in _called(server, case, text).items()}
        wanted = expected(_tokens(encoder, text))
        row = found.pop(f"{name}_row")
        found[f"{name}_cosine"] = round(float(row @ wanted / np.linalg.norm(wanted)), 6)
    taken = _resident(server) - before
    found["estimate_mb"], found["taken_mb"] = loaded["bytes"] // 10**6, taken // 10**6
    found["estimate_over_taken"] = round(loaded["bytes"] / taken, 2)
    return found


def _called(server: Server, case: Case, text: str) -> dict[str, Any]:
    with server.client(credit="unlimited") as client:
        began = time.monotonic()
        order = {"model": case.name, "input": text}
        answer = client.post("/v1/embeddings", json=order, timeout=1200)
    assert answer.status_code == 200, answer.text[:500]
    return {
        "s": round(time.monotonic() - began, 2),
        "tokens": answer.json()["usage"]["prompt_tokens"],
        "row": np.array(answer.json()["data"][0]["embedding"]),
    }


def _encoder(server: Server, name: str) -> TextEncoder:
    data = server.data_dir
    spec = load(shipped_path(), data / "models.toml", data / "models").find(name)
    settings = EngineSettings(calibrate=False)
    loader = LlamaLoader(settings, cores=1, tunings=None, clock=SystemClock())
    return loader.open_encoder(spec)


def _tokens(encoder: TextEncoder, text: str) -> np.ndarray:
    [tokens] = encoder.tokenizer.encode([text])
    return frame_single(tokens, encoder.frame, tokens_max=len(tokens) + 9).tokens


def _cut(text: str, encoder: TextEncoder, tokens_max: int) -> str:
    """Return the longest beginning of a text that has no more tokens than that."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_tokens(encoder, text[:middle])) <= tokens_max:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _resident(server: Server) -> int:
    assert server.process is not None
    return resident(server.process.pid)


def _cases(gemma: Path | None) -> Sequence[Case]:
    if gemma is None:
        return CASES
    return (*CASES, Case("gemma-3-270m", 32_768, 4096, _published(gemma, GEMMA)))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help=", ".join(case.name for case in CASES))
    parser.add_argument("--gemma", type=Path, help="the file of Gemma 3 270M, if you have it")
    parser.add_argument("--tokens", type=int, help="of the longest sequence that is computed")
    parser.add_argument("--memory-mb", type=int, default=0, help="engine.memory_mb")
    parser.add_argument("--folder", type=Path, help="for files of gigabytes")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        for case in _cases(chosen.gemma):
            if chosen.only not in (None, case.name):
                continue
            computed = min(case.computed, chosen.tokens or case.computed)
            settings = {"DEFAULT_WAIT_S": "60", "ENGINE_MEMORY_MB": str(chosen.memory_mb)}
            server = Server(folder / "data").start(
                env={f"GIGAROUTER_{name}": value for name, value in settings.items()}
            )
            try:
                found = measured(replace(case, computed=computed), server, folder)
            finally:
                server.stop()
                shutil.rmtree(folder / "data", ignore_errors=True)
            line = "  ".join(f"{key} {value}" for key, value in found.items())
            print(line, flush=True)  # noqa: T201 - for whoever measures


if __name__ == "__main__":
    main()
