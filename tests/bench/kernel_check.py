"""Kernel check: our kernels alone, of each instruction set, under AddressSanitizer or emulation.

    python -m tests.bench.kernel_check [--folder DIR] [--rounds N] [--only avx2,neon] [--golden]

Compiles `kernel_check.cpp` with the kernels of one instruction set after the other and runs it: AVX2,
AVX-512 and AMX where this processor has them, under AddressSanitizer and
UndefinedBehaviorSanitizer; NEON with a cross compiler, under qemu (on Debian: apt install
g++-aarch64-linux-gnu qemu-user). `--golden` also compiles llama.cpp for AArch64 and compares the
starter model's vectors under emulation with the reference's. DIR keeps the engine's sources and what
was compiled of them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from appliance.catalog.catalog import load, shipped_path
from appliance.core.clock import SystemClock
from appliance.engine.loader import LlamaLoader
from appliance.native.distribution import BINDING, BINDING_SHA256, SOURCES, binding_version
from appliance.sequences.sequence import frame_single
from appliance.settings import EngineSettings
from tests.bench.reference import cosines
from tests.server import EMBED, ROOT

CHECK = Path(__file__).with_suffix(".cpp")
EMBEDDER = CHECK.with_name("golden_vectors.cpp")
GOLDEN = ROOT / "tests/golden/all-minilm-l6-v2.json"
STARTER = next((ROOT / "appliance/starter").glob("*.gguf"))
SAME = 0.9999
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=all"
"""Tensors of quantized weights are not aligned to their types; ggml reads them as they are."""
CROSS = "aarch64-linux-gnu-"
OFF = ("COMMON", "TOOLS", "EXAMPLES", "TESTS")


@dataclass(frozen=True)
class Target:
    """One instruction set: how it is compiled, and where it can run."""

    name: str
    march: str
    flag: str = ""
    """Of /proc/cpuinfo; empty: emulated."""

    @property
    def is_emulated(self) -> bool:
        return not self.flag

    @property
    def compiler(self) -> str:
        return f"{CROSS}g++" if self.is_emulated else "g++"


TARGETS = (
    Target("avx2", "haswell", "avx2"),
    Target("avx512", "skylake-avx512", "avx512bw"),
    Target("amx", "sapphirerapids", "amx_bf16"),
    Target("neon", "armv8-a"),
)


def run(*command: str | Path, quiet: bool = True) -> str:
    """Run a command and return what it printed.

    Raises:
        SystemExit: it failed; its last lines are shown.
    """
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit("\n".join((done.stdout + done.stderr).splitlines()[-40:]))
    if not quiet:
        click.echo(done.stdout.strip())
    return done.stdout


def sources(folder: Path) -> Path:
    """Return llama.cpp as the engine has it, downloaded if it is not there yet."""
    name = f"{BINDING.replace('-', '_')}-{binding_version()}"
    found = folder / name / "vendor/llama.cpp"
    if not found.is_dir():
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{BINDING}=={binding_version()} --hash=sha256:{BINDING_SHA256}\n")
        options = ["--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes"]
        run(sys.executable, "-P", "-m", "pip", "download", *options, "-r", wanted, "-d", folder)
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return found


def libraries(folder: Path, engine: Path, target: Target, *what: str) -> Path:
    """Return the folder of llama.cpp's libraries for a target, compiled if they are not yet."""
    built = folder / ("aarch64" if target.is_emulated else "native")
    options = [f"-DLLAMA_BUILD_{part}=OFF" for part in OFF]
    options += ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_OPENMP=OFF", "-DGGML_NATIVE=OFF"]
    options += [f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={SOURCES / 'engine.cmake'}"]
    if target.is_emulated:
        options += ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
        options += [f"-DCMAKE_C_COMPILER={CROSS}gcc", f"-DCMAKE_CXX_COMPILER={CROSS}g++"]
    run("cmake", "-S", engine, "-B", built, *options)
    run("cmake", "--build", built, "--parallel", str(os.cpu_count() or 1), "--target", *what)
    return built / "bin"


def compiled(folder: Path, engine: Path, target: Target) -> Path:
    """Return the program that checks a target's kernels."""
    built = libraries(folder, engine, target, "ggml-base")
    program = folder / f"check-{target.name}"
    parts = ("include", "src", "src/ggml-cpu")
    run(
        target.compiler,
        *("-O2" if target.is_emulated else SANITIZERS).split(),
        "-std=c++17",
        f"-march={target.march}",
        f"-DGIGAROUTER_KERNELS=gigarouter_{target.name}",
        *(f"-I{engine / 'ggml' / part}" for part in parts),
        f"-I{SOURCES}",
        SOURCES / "kernels.cpp",
        CHECK,
        f"-L{built}",
        "-lggml-base",
        f"-Wl,-rpath,{built}",
        "-pthread",
        "-o",
        program,
    )
    return program


def emulated(*command: str | Path) -> Sequence[str | Path]:
    """Return a command of AArch64 as one that runs here."""
    if platform.machine() == "aarch64":
        return command
    return ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", *command)


def check_golden(folder: Path, engine: Path, target: Target) -> None:
    """Compare the starter's vectors, computed under emulation, with the reference's.

    Raises:
        SystemExit: one of them is another.
    """
    built = libraries(folder, engine, target, "llama")
    program = folder / "golden-vectors"
    parts = (engine / "include", engine / "ggml/include")
    includes = [f"-I{part}" for part in parts]
    linked = ["-lllama", "-lggml", "-lggml-cpu", "-lggml-base", f"-Wl,-rpath,{built}"]
    linked += [f"-Wl,-rpath-link,{built}"]
    options = ["-std=c++17", "-O2", *includes, EMBEDDER, f"-L{built}", *linked]
    run(target.compiler, *options, "-o", program)
    items = json.loads(GOLDEN.read_text("utf-8"))["items"]
    spec = load(shipped_path(), folder / "none.toml", folder).find(EMBED)
    loader = LlamaLoader(EngineSettings(), cores=1, tunings=None, clock=SystemClock())
    encoder = loader.open_encoder(spec)
    lines = []
    for tokens in encoder.tokenizer.encode([item["text"] for item in items]):
        framed = frame_single(tokens, encoder.frame, tokens_max=512)
        lines.append(" ".join(map(str, framed.tokens)))
    texts = folder / "tokens.txt"
    texts.write_text("\n".join(lines) + "\n")
    printed = run(*emulated(program, STARTER, texts))
    rows = np.array([line.split() for line in printed.splitlines()], np.float32)
    worst = cosines(rows, np.array([item["embedding"] for item in items], np.float32)).min()
    click.echo(f"neon: {len(items)} golden vectors under emulation, cosine at least {worst:.7f}")
    if not worst >= SAME:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/gigarouter/check")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", default=",".join(target.name for target in TARGETS))
    parser.add_argument("--golden", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    flags = Path("/proc/cpuinfo").read_text().split()
    engine = sources(asked.folder)
    for target in TARGETS:
        if target.name not in asked.only.split(","):
            continue
        if target.flag and target.flag not in flags:
            click.echo(f"{target.name}: not on this processor")
            continue
        program = compiled(asked.folder, engine, target)
        command: Sequence[str | Path] = (program, str(asked.rounds))
        if target.is_emulated:
            command = emulated(*command)
        click.echo(f"{target.name}: ", nl=False)
        run(*command, quiet=False)
        if target.is_emulated and asked.golden:
            check_golden(asked.folder, engine, target)


if __name__ == "__main__":
    main()
