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
NODE = "node"


def run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-2000:]}")


def made(folder: Path, wanted: Path) -> bool:
    """Say whether an environment is what its file asks for."""
    stamp = folder / wanted.name
    return stamp.exists() and stamp.read_bytes() == wanted.read_bytes()


def make(folder: Path, name: str) -> None:
    """Make an environment, unless it is there."""
    wanted = HERE / ("package.json" if name == NODE else f"requirements/{name}.txt")
    place = folder / name
    if made(place, wanted) and (name != NODE or (place / "node_modules").exists()):
        return
    click.echo(f"installing {place}", err=True)
    if name == NODE:
        place.mkdir(parents=True, exist_ok=True)
        for each in ("package.json", "package-lock.json"):
            shutil.copy(HERE / each, place)
        run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], place)
    else:
        run([sys.executable, "-m", "venv", place], HERE)
        pip = [place / "bin/python", "-m", "pip", "--disable-pip-version-check", "install"]
        run([*pip, "--quiet", "--requirement", wanted], HERE)
        shutil.copy(wanted, place)


def command(folder: Path, name: str, script: str) -> list[str | Path]:
    """Return what runs a client's script."""
    if name != NODE:
        return [folder / name / "bin/python", HERE / "python" / script]
    # Node looks for packages beside the script.
    for each in (HERE / "node").glob("*.mjs"):
        shutil.copy(each, folder / name)
    return ["node", folder / name / script]


def version(folder: Path, name: str, package: str) -> str:
    """Return the installed version of a package."""
    if name == NODE:
        text = (folder / name / "node_modules" / package / "package.json").read_text("utf-8")
        return str(json.loads(text)["version"])
    [packages] = (folder / name).glob("lib/python*/site-packages")
    return next((d.version for d in distributions(name=package, path=[str(packages)])), "?")


def word_splitter(folder: Path) -> Path:
    """Return the folder with tiktoken's cl100k_base that a package of `sdks` carries."""
    make(folder, "sdks")
    [packages] = (folder / "sdks").glob("lib/python*/site-packages")
    return packages / "litellm/litellm_core_utils/tokenizers"
