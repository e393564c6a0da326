"""Build: llama-cpp-python compiled on this machine, for this processor, with our kernels.

Owns a cache of built wheels, one for each way of building. pip's own cache is not used: it would
give any llama-cpp-python that it has ever built, however that was configured. Needs the standard
library alone: it prepares environments into which nothing is installed yet.
"""

import hashlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from appliance import machine
from appliance.native.engine_cache import in_use, remove_old

ENGINE = "llama-cpp-python==0.3.36"
"""The version whose functions our kernels replace. A new one is tried, then stands here, in
pyproject.toml and in the lock (`packaging/lock.sh`); a test holds the three equal."""
ENGINE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
"""Of its source distribution, which is what we compile."""
SOURCES = Path(__file__).parent
STAMP = ".engine"
"""File in the environment's folder with the key of the engine that is installed there."""
HEARTBEAT_S = 30
"""Seconds between two lines that a build goes on."""
FLAGS = ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS")
"""Variables of the environment that change how the engine is built."""

Say = Callable[[str], None]


class BuildFailed(Exception):
    """The engine could not be built or installed; the message says why and what to do."""


def install(say: Say, *, environment: Mapping[str, str], force: bool = False) -> bool:
    """Put the engine into this interpreter's environment; return whether anything was done.

    It is taken from the cache if it was built before, and compiled otherwise. `force` compiles.

    Raises:
        BuildFailed: it does not compile, or pip refuses.
    """
    key = key_of(environment)
    stamp = Path(sys.prefix, STAMP)
    if not force and _read(stamp) == key and _is_importable():
        return False
    folder = _cache(environment) / key
    with in_use(folder):
        wheel = next(folder.glob("*.whl"), None)
        if wheel is None or force:
            require_compiler(environment)
            say("compiling the engine (llama.cpp) for this processor, 2 to 10 minutes once")
            wheel = build(folder, say, environment=environment)
        _pip(["install", "--force-reinstall", "--no-deps", str(wheel)], say, environment)
        freed = remove_old(folder)
    if freed:
        say(f"removed engines that were not used for long ({freed / 1e6:.0f} MB)")
    stamp.write_text(key)
    return True


def build(folder: Path, say: Say, *, environment: Mapping[str, str]) -> Path:
    """Compile a wheel into a folder and return its path; the folder has it whole or not at all.

    Raises:
        BuildFailed: it does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    include = shlex.quote(f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={SOURCES / 'engine.cmake'}")
    # Ours comes last, and what the user set (a GPU, for instance) stays.
    changed = {
        "CMAKE_BUILD_PARALLEL_LEVEL": str(machine.cores()),
        **environment,
        "CMAKE_ARGS": f"{environment.get('CMAKE_ARGS', '')} {include}".strip(),
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix="building.") as building:
        wanted = Path(building, "requirements.txt")
        wanted.write_text(f"{ENGINE} --hash=sha256:{ENGINE_SHA256}\n")
        options = ["--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-python"]
        options += ["--require-hashes", "--requirement", str(wanted)]
        _pip(["wheel", *options, "--wheel-dir", building], say, changed)
        [made] = Path(building).glob("*.whl")
        return Path(shutil.move(made, folder / made.name))


def key_of(environment: Mapping[str, str]) -> str:
    """Return a name that differs wherever the engine would be built differently."""
    parts = [ENGINE, platform.platform(terse=True), platform.machine(), platform.python_version()]
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
        if source.suffix in (".cmake", ".cpp", ".h"):
            content.update(source.read_bytes())
    return content.hexdigest()[:20]


def require_compiler(environment: Mapping[str, str]) -> None:
    """Refuse to begin without a C++ compiler.

    Raises:
        BuildFailed: there is none.
    """
    if not any(shutil.which(name) for name in (environment.get("CXX") or "c++", "g++", "clang++")):
        raise BuildFailed(
            "needs a C++ compiler to build the engine "
            "(on Debian: apt install g++; on macOS: xcode-select --install)"
        )


def _cache(environment: Mapping[str, str]) -> Path:
    caches = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "gigarouter", "engine")


def _pip(arguments: Sequence[str], say: Say, environment: Mapping[str, str]) -> None:
    # -P: no module of the current folder is run in the place of one of pip's.
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments]
    done = threading.Event()

    def beat() -> None:
        waited = 0
        while not done.wait(HEARTBEAT_S):
            waited += HEARTBEAT_S
            say(f"still working after {waited} s")

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        ran = subprocess.run(  # noqa: S603 - our own interpreter and arguments
            command, env=dict(environment), capture_output=True, text=True, check=False
        )
    finally:
        done.set()
    if ran.returncode != 0:
        raise BuildFailed("\n".join((ran.stdout + ran.stderr).splitlines()[-30:]))


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
