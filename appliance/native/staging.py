"""Staging: another engine is tried beside the one that is installed, and only then takes its place.

Owns the order that loses nothing: unpack it into a folder of its own, let it compute known vectors
in a process of its own, keep what is installed as wheels, install, compute again, and go back where
that fails.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

from appliance.native import pip, wheels
from appliance.native.distribution import BINDING, NAME
from appliance.native.pip import BuildFailed, Say
from appliance.native.variants import GRAPHICS

CHECK = "appliance.bench.golden"
CHECK_S = 300
"""Seconds that the check may take: a machine that is slow, or emulated."""
COSINE_MIN = 0.999
KEPT, LEAVING = ".engine.before", ".engine.leaving"
"""Folders in the environment's own with the wheels of the engine before: that of the last switch,
and that of one which is going on, or was cut off."""
ENGINES = (NAME, BINDING, *(f"{NAME}-{variant}" for variant in GRAPHICS))
"""Distributions that are an engine, or a part of one; the second is the binding's own."""


@dataclass(frozen=True)
class Checked:
    """What an engine computed: the lowest cosine similarity with the reference, and its facts."""

    cosine: float
    facts: Mapping[str, str]


def switch(engine: Sequence[Path], say: Say, environment: Mapping[str, str]) -> Checked:
    """Put an engine, given as wheels, into the place of the one that is installed.

    Raises:
        BuildFailed: it is not right on this machine, or cannot be installed; the one that was there
            is there still.
    """
    with staged(engine, say, environment) as folder:
        check(environment, folder)
    kept, leaving = Path(sys.prefix, KEPT), Path(sys.prefix, LEAVING)
    shutil.rmtree(leaving, ignore_errors=True)
    leaving.mkdir()
    # Kept under a name that says so until it is over: a switch that is killed can be gone back on.
    previous = [wheels.pack(found, leaving) for found in parts()]
    _replace(engine, say, environment)
    try:
        checked = check(environment)
    except BuildFailed:
        if previous:
            say("it is not right where it was installed; going back")
            _replace(previous, say, environment)
            shutil.rmtree(leaving, ignore_errors=True)
        raise
    shutil.rmtree(kept, ignore_errors=True)
    leaving.replace(kept)
    return checked


def before() -> list[Path]:
    """Return the wheels of the engine that was installed before; empty: there was none.

    After a switch that was cut off, those of the engine that it was about to replace.
    """
    folders = (Path(sys.prefix, name) for name in (LEAVING, KEPT))
    found = (sorted(folder.glob("*.whl")) for folder in folders)
    return next((wheels_ for wheels_ in found if wheels_), [])


def parts() -> list[Distribution]:
    """Return the distributions of this environment that are an engine, or a part of one."""
    found = map(wheels.installed, ENGINES)
    return [each for each in found if each is not None]


@contextmanager
def staged(engine: Sequence[Path], say: Say, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield a folder with an engine in it, to be put first on Python's path.

    Raises:
        BuildFailed: pip refuses it, for this Python or this kind of machine.
    """
    with tempfile.TemporaryDirectory(prefix="gigarouter-engine.") as folder:
        options = ["--no-deps", "--no-index", "--target", folder]
        pip.run(["install", *options, *map(str, engine)], say, environment)
        yield Path(folder)


def check(environment: Mapping[str, str], folder: Path | None = None) -> Checked:
    """Let an engine compute known vectors: the one in a folder, or the one that is installed.

    Raises:
        BuildFailed: it ends the process, or its vectors are others.
    """
    # -P: no module of the current folder is run in the place of one of ours.
    command = [sys.executable, "-P", "-m", CHECK]
    try:
        ran = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            env=with_path(environment, folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=CHECK_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"the engine computed nothing in {CHECK_S} s") from error
    if ran.returncode < 0:
        raise BuildFailed(f"the engine ended its process by signal {-ran.returncode}")
    if ran.returncode > 0:
        raise BuildFailed(f"the engine cannot be used here:\n{ran.stderr[-2000:]}")
    found = json.loads(ran.stdout)
    checked = Checked(cosine=found["cosine"], facts=found["facts"])
    if not checked.cosine >= COSINE_MIN:  # what is no number is not right either
        raise BuildFailed(
            f"the engine's vectors are not the model's: cosine {checked.cosine:.4f}, "
            f"and at least {COSINE_MIN} is right"
        )
    return checked


def with_path(environment: Mapping[str, str], folder: Path | None) -> dict[str, str]:
    """Return variables with which a process imports what is in a folder first."""
    if folder is None:
        return dict(environment)
    return {**environment, "PYTHONPATH": str(folder)}


def _replace(engine: Sequence[Path], say: Say, environment: Mapping[str, str]) -> None:
    """Remove every part of an engine, and install one."""
    if there := [found.name for found in parts()]:
        pip.run(["uninstall", "--yes", *there], say, environment)
    options = ["--force-reinstall", "--no-deps", "--no-index"]
    pip.run(["install", *options, *map(str, engine)], say, environment)
