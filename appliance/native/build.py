"""Build: the engine compiled on this machine, for this processor, with our kernels.

Owns a cache of built wheels, one for each way of building. pip's own cache is not used: it would
give any that it has ever built, however that was configured. Needs the standard library alone: it
prepares environments into which nothing is installed yet.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from appliance import machine
from appliance.native import pip
from appliance.native.distribution import (
    BINDING,
    BINDING_SHA256,
    NAME,
    SOURCES,
    SUFFIXES,
    VERSION,
    UnknownSource,
    binding_version,
    unpack,
)
from appliance.native.engine_cache import in_use, remove_old
from appliance.native.pip import BuildFailed, Say
from appliance.native.wheels import installed

ENGINE = f"{NAME}=={VERSION}"
"""What is built: in pyproject.toml as what the program needs, which a test holds equal."""
STAMP = ".engine"
"""File in the environment's folder with the key of the engine that is installed there."""
FLAGS = ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS")
"""Variables of the environment that change how the engine is built."""


def install(say: Say, *, environment: Mapping[str, str], force: bool = False) -> bool:
    """Put the engine into this interpreter's environment; return whether anything was done.

    It is taken from the cache if it was built before, and compiled otherwise. `force` compiles.
    An environment in which nothing is installed yet cannot check it: `staging` does where it can.

    Raises:
        BuildFailed: it does not compile, or pip refuses.
    """
    if not force and is_installed(environment):
        return False
    with built(say, environment=environment, force=force) as wheel:
        if installed(BINDING) is not None:  # the same files, of another distribution
            pip.run(["uninstall", "--yes", BINDING], say, environment)
        pip.run(["install", "--force-reinstall", "--no-deps", str(wheel)], say, environment)
    note(environment)
    return True


def is_installed(environment: Mapping[str, str]) -> bool:
    """Say whether the engine in this environment is what would be built now."""
    return _read(Path(sys.prefix, STAMP)) == key_of(environment) and _is_importable()


def note(environment: Mapping[str, str]) -> None:
    """Note that the engine in this environment is what would be built now."""
    Path(sys.prefix, STAMP).write_text(key_of(environment))


def forget() -> None:
    """Note that the engine in this environment was not built on this machine."""
    Path(sys.prefix, STAMP).unlink(missing_ok=True)


@contextmanager
def built(say: Say, *, environment: Mapping[str, str], force: bool = False) -> Iterator[Path]:
    """Yield the wheel of the engine for this processor, which nobody removes during the block.

    Raises:
        BuildFailed: it does not compile.
    """
    folder = cache(environment) / key_of(environment)
    with in_use(folder):
        wheel = next(folder.glob("*.whl"), None)
        if wheel is None or force:
            require_compiler(environment)
            say("compiling the engine (llama.cpp) for this processor, 2 to 10 minutes once")
            wheel = build(folder, say, environment=environment)
        yield wheel
        freed = remove_old(folder)
    if freed:
        say(f"removed engines that were not used for long ({freed / 1e6:.0f} MB)")


def build(folder: Path, say: Say, *, environment: Mapping[str, str]) -> Path:
    """Compile a wheel into a folder and return its path; the folder has it whole or not at all.

    Raises:
        BuildFailed: it does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = {"CMAKE_BUILD_PARALLEL_LEVEL": str(machine.cores()), **environment}
    with tempfile.TemporaryDirectory(dir=folder, prefix="building.") as temporary:
        building = Path(temporary)
        source = fetch_source(building, say, environment=environment)
        options = ["--no-deps", "--no-cache-dir", "--wheel-dir", str(building)]
        pip.run(["wheel", *options, str(source)], say, changed)
        [made] = building.glob("*.whl")
        return Path(shutil.move(made, folder / made.name))


def fetch_source(folder: Path, say: Say, *, environment: Mapping[str, str]) -> Path:
    """Download the binding's source, make it ours in a folder, and return what is to be built.

    Raises:
        BuildFailed: it cannot be had, or is not what we change.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{BINDING}=={binding_version()} --hash=sha256:{BINDING_SHA256}\n")
    options = ["--no-deps", "--no-cache-dir", "--no-binary", BINDING, "--dest", str(folder)]
    pip.run(["download", *options, "--require-hashes", "-r", str(wanted)], say, environment)
    [archive] = folder.glob("*.tar.gz")
    try:
        return unpack(archive, folder / "source")
    except UnknownSource as error:
        raise BuildFailed(str(error)) from error


def key_of(environment: Mapping[str, str]) -> str:
    """Return a name that differs wherever the engine would be built differently."""
    parts = [
        ENGINE,
        BINDING_SHA256,
        platform.platform(terse=True),
        platform.machine(),
        platform.python_version(),
    ]
    parts += [f"{name}={environment.get(name, '')}" for name in FLAGS]
    for compiler in (environment.get("CC") or "cc", environment.get("CXX") or "c++"):
        found = shutil.which(compiler)
        parts.append(f"{found} {_output([found, '--version']) if found else ''}")
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines()
        parts += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    else:
        parts.append(_output(["sysctl", "-n", "machdep.cpu.brand_string"]))
    content = hashlib.sha256("\n".join(parts).encode())
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in SUFFIXES:
            content.update(source.read_bytes())
    return content.hexdigest()[:20]


def cache(environment: Mapping[str, str]) -> Path:
    """Return the folder of the engines that were built for this user."""
    caches = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "gigarouter", "engine")


def has_compiler(environment: Mapping[str, str]) -> bool:
    """Say whether there is a C++ compiler."""
    return any(map(shutil.which, (environment.get("CXX") or "c++", "g++", "clang++")))


def require_compiler(environment: Mapping[str, str]) -> None:
    """Refuse to begin without a C++ compiler.

    Raises:
        BuildFailed: there is none.
    """
    if not has_compiler(environment):
        raise BuildFailed(
            "needs a C++ compiler to build the engine "
            "(on Debian: apt install g++; on macOS: xcode-select --install)"
        )


def _is_importable() -> bool:
    return bool(_output([sys.executable, "-P", "-c", "import llama_cpp; print('yes')"]))


def _output(command: Sequence[str]) -> str:
    try:
        ran = subprocess.run(  # noqa: S603 - compilers and our own interpreter
            command, capture_output=True, text=True, check=False, timeout=60
        )
    except OSError:
        return ""
    return ran.stdout if ran.returncode == 0 else ""


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
