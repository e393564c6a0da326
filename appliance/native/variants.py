"""Variants: the engines that there are, and which of them this machine can use.

Owns the names: `cpu` is prebuilt and holds kernels for every generation of processors, `native` is
compiled here for this one, the others add a library for graphics cards to `cpu`.
"""

import ctypes
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.native.build import has_compiler
from appliance.native.distribution import NAME
from appliance.native.wheels import installed

GRAPHICS = ("cuda13", "cuda12", "rocm", "vulkan")
"""Variants with a distribution of their own, the fastest first."""


CARDS = Path("/dev/dri")


@dataclass(frozen=True)
class Variant:
    """One engine, and why it is of no use here (empty: it is)."""

    name: str
    about: str
    reason: str
    is_installed: bool


def distributions(name: str) -> tuple[str, ...]:
    """Return the distributions that make up a variant; none for what is compiled here."""
    if name == "native":
        return ()
    return (NAME, f"{NAME}-{name}") if name in GRAPHICS else (NAME,)


def variants(environment: Mapping[str, str]) -> list[Variant]:
    """Return every variant that was made for this kind of machine, the best first."""
    now = current()
    return [
        Variant(name, about, reason(environment), is_installed=name == now)
        for name, about, reason in _offered()
    ]


def current() -> str:
    """Return the name of the variant that is installed; empty: there is none."""
    engine = installed(NAME)
    if engine is None:
        return ""
    # What is compiled for one processor has no library for each generation of them.
    if not any(file.name.startswith("libggml-cpu-") for file in engine.files or ()):
        return "native"
    added = [name for name in GRAPHICS if installed(f"{NAME}-{name}") is not None]
    return added[0] if added else _portable()


def called(name: str, environment: Mapping[str, str]) -> str:
    """Return the variant that a user means: `cuda` is the newest that the driver serves.

    Empty: there is none of this name for this kind of machine.
    """
    there = variants(environment)
    if name == "cuda":
        return next((v.name for v in there if v.name.startswith(name) and not v.reason), "")
    if name == "cpu":
        return _portable()
    return name if name in {variant.name for variant in there} else ""


def _portable() -> str:
    return "metal" if sys.platform == "darwin" and platform.machine() == "arm64" else "cpu"


def _offered() -> list[tuple[str, str, Callable[[Mapping[str, str]], str]]]:
    native = ("native", "compiled here for this processor, with the flags of CMAKE_ARGS", _compiler)
    if sys.platform == "darwin":
        return [(_portable(), "prebuilt, for every Mac of this kind", lambda _: ""), native]
    graphics = [
        ("cuda13", "prebuilt, for NVIDIA cards with driver 580 or newer", lambda _: _cuda(13)),
        ("cuda12", "prebuilt, for NVIDIA cards with driver 525 or newer", lambda _: _cuda(12)),
        ("rocm", "prebuilt, for AMD cards", lambda _: _device("/dev/kfd", "AMD's driver")),
        ("vulkan", "prebuilt, for any card with a Vulkan driver", lambda _: _vulkan()),
    ]
    cpu = ("cpu", "prebuilt, with kernels for every processor of this kind", lambda _: "")
    return [*graphics, cpu, native]


def _cuda(major: int) -> str:
    found = _driver_version()
    if found is None:
        return "no NVIDIA driver is here (libcuda.so.1)"
    return "" if found >= major else f"the driver knows CUDA {found}"


def _driver_version() -> int | None:
    """Return the newest CUDA that the driver serves (CUDA's `cuDriverGetVersion`)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        if driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return number.value // 1000


def _device(path: str, what: str) -> str:
    return "" if Path(path).exists() else f"{what} is not here ({path})"


def _vulkan() -> str:
    if not any(CARDS.glob("renderD*")):
        return f"no graphics card is here ({CARDS}/renderD*)"
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return "Vulkan's loader is not here (on Debian: apt install libvulkan1)"
    return ""


def _compiler(environment: Mapping[str, str]) -> str:
    return "" if has_compiler(environment) else "no C++ compiler is here"
