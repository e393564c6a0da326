"""Install: seconds from nothing to a first vector, for each way of installing, without a compiler.

    python -m tests.bench.install --wheels DIR [pipx] [uv] [pip]

DIR holds the wheels of gigarouter and of its engine (`packaging/engines/make.py`); everything else
comes from pip's index. Each way has a HOME of its own without caches, and no compiler on its PATH.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import click

from appliance import machine

COMPILERS = re.compile(
    r"(.*-)?(cc|c\+\+|gcc|g\+\+|clang|clang\+\+|cpp|ld|as|make|gmake|ninja|cmake|nvcc|rustc|cargo)"
    r"(-?[\d.]+)?"
)
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
GOLDEN = Path(__file__).parents[1] / "golden/all-minilm-l6-v2.json"
STARTED_S = 120
TOOLS = {"pipx": "pipx", "uv": "uv", "pip": ""}
"""What installs, and the distribution that brings it."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--wheels", type=Path, required=True)
    arguments.add_argument("way", nargs="*", choices=[*TOOLS, []], default=[])
    given = arguments.parse_args()
    processor = machine.processor().partition(":")[2].strip()
    click.echo(f"{processor}, {machine.cores()} cores; no caches, no compiler on PATH")
    click.echo("| way | installed after s | first vector after s | cosine |\n|---|---|---|---|")
    for way in given.way or TOOLS:
        with tempfile.TemporaryDirectory() as temporary:
            installed, first, cosine = measure(way, given.wheels.resolve(), Path(temporary))
        click.echo(f"| {way} | {installed:.1f} | {first:.1f} | {cosine:.5f} |")


def measure(way: str, wheels: Path, folder: Path) -> tuple[float, float, float]:
    """Return seconds until it is installed, until the first vector, and the vector's cosine."""
    tools = folder / "tools"
    tool = _tool(way, tools)
    environment = _environment(folder, tools)
    began = time.monotonic()
    program = INSTALL[way](tool, wheels, folder, environment)
    installed = time.monotonic() - began
    cosine = _first_vector(program, folder, environment)
    return installed, time.monotonic() - began, cosine


def _tool(way: str, tools: Path) -> Path:
    """Return the installer, made before the time counts; it is no part of what is measured."""
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    if TOOLS[way]:
        quiet = ("install", "--quiet", TOOLS[way])
        subprocess.run([tools / "bin/python", "-m", "pip", *quiet], check=True)
    return tools / "bin" / (way if TOOLS[way] else "python")


def _environment(folder: Path, tools: Path) -> dict[str, str]:
    programs = folder / "programs"
    programs.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*"):
            if not COMPILERS.fullmatch(program.name) and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    assert not any(shutil.which(name, path=str(programs)) for name in ("cc", "gcc", "c++"))
    home = folder / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "UV_", "SSL_")) or name.lower().endswith("_proxy")
    }
    return {**kept, "HOME": str(home), "PATH": f"{programs}", "LANG": "C.UTF-8"}


def _with_pip(python: Path, wheels: Path, folder: Path, environment: dict[str, str]) -> Path:
    _run(environment, python, "-m", "venv", folder / "venv")
    options = ("install", "--quiet", "--find-links", wheels, "gigarouter")
    _run(environment, folder / "venv/bin/python", "-m", "pip", *options)
    return folder / "venv/bin/gigarouter"


def _with_pipx(pipx: Path, wheels: Path, folder: Path, environment: dict[str, str]) -> Path:
    _run(environment, pipx, "install", f"--pip-args=--find-links={wheels}", "gigarouter")
    return folder / "home/.local/bin/gigarouter"


def _with_uv(uv: Path, wheels: Path, folder: Path, environment: dict[str, str]) -> Path:
    _run(environment, uv, "tool", "install", "--find-links", wheels, "gigarouter")
    return folder / "home/.local/bin/gigarouter"


INSTALL: dict[str, Callable[[Path, Path, Path, dict[str, str]], Path]] = {
    "pipx": _with_pipx,
    "uv": _with_uv,
    "pip": _with_pip,
}


def _run(environment: dict[str, str], *command: str | Path) -> str:
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}:\n{ran.stdout[-2000:]}{ran.stderr[-4000:]}")
    return ran.stdout


def _first_vector(program: Path, folder: Path, environment: dict[str, str]) -> float:
    """Start a server as its user would, ask for a vector, and return its cosine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    data = ("--data-dir", str(folder / "data"))
    server = subprocess.Popen(
        [program, "serve", "--port", str(port), *data],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        item = json.loads(GOLDEN.read_text())["items"][0]
        _until_open(port)
        key = _run(environment, program, "keys", "mint", "first", "--credit", "1", *data).strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/embeddings",
            json.dumps({"model": MODEL, "input": item["text"]}).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=STARTED_S) as answer:
            vector = json.load(answer)["data"][0]["embedding"]
    finally:
        server.terminate()
        server.wait(60)
    pairs = list(zip(vector, item["embedding"], strict=True))
    lengths = sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)
    return float(sum(a * b for a, b in pairs) / lengths**0.5)


def _until_open(port: int) -> None:
    until = time.monotonic() + STARTED_S
    while time.monotonic() < until:
        with socket.socket() as found:
            if found.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit("the server did not open its port")


if __name__ == "__main__":
    main()
