"""Where the clients are installed: environments outside the tree, since they exclude each other.

Each file in `requirements/` becomes a virtual environment, `package.json` a folder of npm's. Both are
made once, and again when their file changes; from whatever index pip and npm are configured for.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
NODE = {"node": HERE, "promptfoo": HERE / "promptfoo"}
"""Environments of npm, and where their package.json is."""


def run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-2000:]}")


def made(folder: Path, wanted: Path) -> bool:
    """Say whether an environment is what its file asks for."""
    stamp = folder / f"{wanted.name}.done"
    return stamp.exists() and stamp.read_bytes() == wanted.read_bytes()


def make(folder: Path, name: str) -> None:
    """Make an environment, unless it is there."""
    wanted = NODE[name] / "package.json" if name in NODE else HERE / f"requirements/{name}.txt"
    place = folder / name
    if made(place, wanted):
        return
    click.echo(f"installing {place}", err=True)
    if name in NODE:
        npm(NODE[name], place)
    else:
        run([sys.executable, "-m", "venv", place], HERE)
        pip = [place / "bin/python", "-m", "pip", "--disable-pip-version-check", "install"]
        run([*pip, "--quiet", "--requirement", wanted], HERE)
    (place / f"{wanted.name}.done").write_bytes(wanted.read_bytes())


def npm(source: Path, place: Path) -> None:
    """Install what package.json says; exactly the locked packages where there is a lock."""
    place.mkdir(parents=True, exist_ok=True)
    for each in source.glob("package*.json"):
        shutil.copy(each, place)
    verb = "ci" if (place / "package-lock.json").exists() else "install"
    run(["npm", verb, "--no-audit", "--no-fund", "--ignore-scripts"], place)


def command(folder: Path, name: str, script: str) -> list[str | Path]:
    """Return what runs a client's script."""
    if name not in NODE:
        return [folder / name / "bin/python", HERE / "python" / script]
    # Node looks for packages beside the script.
    for each in (HERE / "node").glob("*.mjs"):
        shutil.copy(each, folder / name)
    return ["node", folder / name / script]


def version(folder: Path, name: str, package: str) -> str:
    """Return the installed version of a package."""
    if name in NODE:
        text = (folder / name / "node_modules" / package / "package.json").read_text("utf-8")
        return str(json.loads(text)["version"])
    [packages] = (folder / name).glob("lib/python*/site-packages")
    return next((d.version for d in distributions(name=package, path=[str(packages)])), "?")


def word_splitter(folder: Path) -> Path:
    """Return the folder with tiktoken's cl100k_base that a package of `sdks` carries."""
    make(folder, "sdks")
    [packages] = (folder / "sdks").glob("lib/python*/site-packages")
    return packages / "litellm/litellm_core_utils/tokenizers"
