"""Emulated: the prebuilt engine on processors that this machine is not.

    python -m tests.bench.emulated --wheels DIR [--folder DIR]

DIR holds the engine's wheels (`packaging/engines/make.py`). Each processor is emulated (on Debian:
apt install qemu-user), as far as qemu knows its instructions: AVX-512 and AMX it does not. So every
library of the wheel is also loaded alone on this machine, which those that it cannot run refuse.
A wheel for 64-bit ARM runs with a Python of Debian's, which is downloaded once (as root: `dpkg
--add-architecture arm64; apt update`). Prints a table: which library ggml chose, which of our kernels
compute, and the lowest cosine similarity with the reference.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tests.server import ROOT

X86 = ("Nehalem", "SandyBridge", "IvyBridge", "Haswell", "Skylake-Server", "EPYC-Milan")
ARM = ("cortex-a53", "cortex-a76", "neoverse-n1", "a64fx", "max")
DEBIAN = (
    *("python3.11", "python3.11-minimal", "libpython3.11-stdlib", "libpython3.11-minimal"),
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libssl3", "libffi8"),
    *("libsqlite3-0", "libbz2-1.0", "liblzma5", "libuuid1", "libcrypt1"),
)
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
CHECK = ("-m", "appliance.bench.golden")
SECONDS = 600
COSINE_MIN = 0.999


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--wheels", type=Path, required=True)
    arguments.add_argument("--folder", type=Path, help="keeps what is downloaded")
    given = arguments.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        click.echo("| processor | library | kernels | cosine |\n|---|---|---|---|")
        for row in rows(given.wheels, folder, Path(temporary)):
            click.echo(row)
            wrong += "wrong" in row
    sys.exit(bool(wrong))


def rows(wheels: Path, folder: Path, work: Path) -> Iterator[str]:
    """Yield a line of the table for each processor, and for each library alone."""
    for wheel in wheels.glob("gigarouter_engine-*x86_64.whl"):
        staged = _staged(wheel, work / "x86", ())
        for name in X86:
            # OpenBLAS, which numpy multiplies with, takes some emulated processors for newer ones.
            variables = {"PYTHONPATH": str(staged), "OPENBLAS_CORETYPE": "Nehalem"}
            emulator = ("qemu-x86_64", "-cpu", name)
            yield _row(name, (*emulator, sys.executable, "-P", *CHECK), variables)
        for library in sorted((staged / "llama_cpp/lib").glob("libggml-cpu-*")):
            alone = _alone(staged, library.name, work / "alone")
            command = (sys.executable, "-P", *CHECK)
            yield _row("this one", command, {"PYTHONPATH": str(alone)}, library.name)
    for wheel in wheels.glob("gigarouter_engine-*aarch64.whl"):
        python = _debian(folder / "aarch64")
        site = _staged(wheel, work / "aarch64", _lock(folder / "aarch64-wheels"))
        for name in ARM:
            emulator = ("qemu-aarch64", "-cpu", name, "-L", str(folder / "aarch64"))
            paths = os.pathsep.join((str(site), str(ROOT)))
            yield _row(name, (*emulator, str(python), *CHECK), {"PYTHONPATH": paths})


def _row(name: str, command: Sequence[str], variables: dict[str, str], library: str = "") -> str:
    ran = subprocess.run(
        command,
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if ran.returncode != 0:
        reason = (ran.stderr.strip().splitlines() or ["no output"])[-1]
        refused = "could not be loaded" in reason
        return f"| {name} | {library} | | {'not for it' if refused else f'wrong: {reason}'} |"
    found = json.loads(ran.stdout)
    facts, cosine = found["facts"], found["cosine"]
    verdict = f"{cosine:.6f}" if cosine >= COSINE_MIN else f"wrong: {cosine:.6f}"
    return f"| {name} | {facts['processor']} | {facts['kernels']} | {verdict} |"


def _staged(wheel: Path, folder: Path, others: Sequence[Path]) -> Path:
    """Unpack wheels into a folder, for whatever processor they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in (wheel, *others):
        shutil.unpack_archive(each, folder, "zip")
    return folder


def _alone(staged: Path, library: str, folder: Path) -> Path:
    """Return a copy of an engine with one of its libraries for processors."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(staged, folder)
    for each in (folder / "llama_cpp/lib").glob("libggml-cpu-*"):
        if each.name != library:
            each.unlink()
    return folder


def _debian(root: Path) -> Path:
    """Return a Python for 64-bit ARM, with the libraries that it needs, in a folder."""
    python = root / "usr/bin/python3.11"
    if not python.exists():
        with tempfile.TemporaryDirectory() as downloads:
            names = [f"{name}:arm64" for name in DEBIAN]
            subprocess.run(["apt-get", "download", "-q", *names], cwd=downloads, check=True)
            for package in Path(downloads).glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, root], check=True)
    return python


def _lock(folder: Path) -> list[Path]:
    """Return the wheels of what the program needs, for 64-bit ARM."""
    if not folder.is_dir():
        platforms = [f"--platform={name}_aarch64" for name in PLATFORMS]
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.11"]
        command = [sys.executable, "-m", "pip", "download", "-q", *options, *platforms]
        lock = ROOT / "packaging/lock/run.txt"
        subprocess.run([*command, "--require-hashes", "-r", lock, "--dest", folder], check=True)
    return sorted(folder.glob("*.whl"))


if __name__ == "__main__":
    main()
