"""Kernels: the engine's library, and which of our kernels compute in a test.

Only one process's engine is switched: others take their kernels from `GIGAROUTER_KERNELS`.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp

from appliance.settings import KERNEL_NAMES

*NAMES, _ = KERNEL_NAMES
_folder = Path(llama_cpp.llama_cpp._lib._name).parent


def library(name: str) -> ctypes.CDLL:
    """Return one of the engine's libraries."""
    return ctypes.CDLL(str(next(_folder.glob(f"lib{name}.*"))))


cpu = library("ggml-cpu")
ours = hasattr(cpu, "gigarouter_kernels")
if ours:
    cpu.gigarouter_kernels.restype = ctypes.c_char_p
    cpu.gigarouter_use_kernels.restype = ctypes.c_bool
    cpu.gigarouter_use_kernels.argtypes = (ctypes.c_char_p,)


@contextmanager
def using(name: str) -> Iterator[None]:
    """Compute with kernels of this name during the block."""
    if not ours:
        yield
        return
    before = cpu.gigarouter_kernels()
    assert cpu.gigarouter_use_kernels(name.encode()), name
    try:
        yield
    finally:
        assert cpu.gigarouter_use_kernels(before)


def supported() -> list[str]:
    """Return the kernels that this processor and build have, the widest first."""
    found = []
    for name in NAMES if ours else ():
        before = cpu.gigarouter_kernels()
        if cpu.gigarouter_use_kernels(name.encode()):
            found.append(name)
        assert cpu.gigarouter_use_kernels(before)
    return found or ["none"]
