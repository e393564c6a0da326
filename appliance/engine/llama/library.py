"""Library: llama.cpp as it is loaded into this process.

Owns its start, its log, and the two ways to call it: without the GIL what takes long, and with it
what takes nanoseconds.
"""

import ctypes
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.core.errors import InferenceFailed, LoadFailed
from appliance.core.once import once
from appliance.engine.llama.backends import (
    HANDLE,
    LLAMA,
    NAME,
    PATH,
    processor_path,
    registry,
)
from appliance.engine.vectors import Matrix

log = logging.getLogger("gigarouter.llama")

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.ERROR}
"""ggml's levels (debug 1, info 2, warning 3, error 4) to ours; the binding's own table is an
older numbering that loses errors. The library's "info" is a page for each load, and its warnings
guess at vocabularies ("special_eos_id is not in special_eog_ids" for every BERT)."""


class _LogRoute:
    """Joins the library's fragments into lines and hands them to `logging`."""

    def __init__(self) -> None:
        self._text = ""
        self._level = logging.DEBUG

    def __call__(self, level: int, text: bytes | None, _data: int | None) -> None:
        self._text += (text or b"").decode("utf-8", "replace")
        self._level = max(self._level, _LEVELS.get(level, logging.DEBUG))
        if self._text.endswith("\n") or len(self._text) > 4096:  # noqa: PLR2004 - a runaway line
            log.log(self._level, "%s", self._text.strip())
            self._text, self._level = "", logging.DEBUG


_route = llama_cpp.llama_log_callback(_LogRoute())
# A Python callback inside a computation would wait for the GIL at each line. So the library logs to
# a native function that ignores its arguments, except while a model is loaded or freed.
_silent = ctypes.cast(ctypes.CDLL(None).abs, llama_cpp.llama_log_callback)

# PyDLL keeps the GIL: for calls of nanoseconds, giving it up can cost milliseconds.
quick = ctypes.PyDLL(NAME, handle=HANDLE)
quick.llama_get_embeddings_seq.restype = ctypes.c_void_p
quick.llama_get_embeddings_seq.argtypes = (ctypes.c_void_p, ctypes.c_int32)
quick.llama_set_n_threads.restype = None
quick.llama_set_n_threads.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
quick.llama_set_embeddings.restype = None
quick.llama_set_embeddings.argtypes = (ctypes.c_void_p, ctypes.c_bool)
quick.llama_memory_clear.restype = None
quick.llama_memory_clear.argtypes = (ctypes.c_void_p, ctypes.c_bool)


@once
def start() -> None:
    """Prepare the library before its first use; later calls do nothing."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
    registry()
    llama_cpp.llama_backend_init()


@once
def features() -> str:
    """Return what this build can do, as the library says it.

    The library writes it into one string of its own: two threads that ask free it twice.
    """
    start()
    return (llama_cpp.llama_print_system_info() or b"").decode("utf-8", "replace")


@once
def build() -> str:
    """Return what identifies this build: a calibration holds for one of them."""
    stamp = PATH.stat().st_mtime_ns if PATH.exists() else 0
    return f"{llama_cpp.__version__} {stamp} {kernels()} {features()}"


@once
def kernels() -> str | None:
    """Return which of our kernels compute: amx, avx512, avx2 or neon; None where llama.cpp's do."""
    cpu = _cpu()
    if cpu is None:
        return None
    cpu.gigarouter_kernels.restype = ctypes.c_char_p
    name: str = cpu.gigarouter_kernels().decode()
    return None if name == "none" else name


def peak_operations(steps: int) -> int:
    """Compute in registers as fast as our kernels can, and return the operations done.

    0: llama.cpp's own kernels are in use.
    """
    cpu = _cpu()
    if cpu is None:
        return 0
    peak = cpu.gigarouter_peak
    peak.restype, peak.argtypes = ctypes.c_int64, (ctypes.c_int64,)
    return int(peak(steps))


def _cpu() -> ctypes.CDLL | None:
    """Return the library that computes on the processor, if our kernels are in it.

    It gives up the GIL: what is computed in registers takes long, on several threads at once.
    """
    start()
    path = processor_path()
    found = ctypes.CDLL(str(path)) if path is not None else None
    return found if hasattr(found, "gigarouter_kernels") else None


def facts() -> dict[str, str]:
    """Return this build's version, kernels, features and path."""
    start()
    computes = processor_path()
    return {
        "llama-cpp-python": llama_cpp.__version__,
        "kernels": f"gigarouter's ({kernels()})" if kernels() else "llama.cpp's own",
        # Buffers take memory when they are written to, and those that nobody reads are not made.
        "memory": "gigarouter's" if hasattr(LLAMA, "gigarouter_engine") else "llama.cpp's own",
        "features": features(),
        "library": str(PATH),
        "processor": computes.name if computes else "none",
    }


@contextmanager
def routed_log() -> Iterator[None]:
    """Send the library's log to ours during the block, in which nothing may be computed."""
    llama_cpp.llama_log_set(_route, ctypes.c_void_p())
    try:
        yield
    finally:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p())


def load_model(
    path: Path, *, vocabulary_only: bool, progress: Callable[[float], bool] | None = None
) -> int:
    """Return the handle of a loaded model.

    `progress` is told 0 to 1, once for each tensor, and returns False to end the load.

    The weights are read into memory of our own. Mapped, a file that is truncated in place would end
    the process at the next touch of a page (SIGBUS), and one that is overwritten would change every
    vector without a sign. Both ways take the same memory; reading takes 0.6 s a gigabyte.

    Raises:
        LoadFailed: the library cannot use this file, or `progress` ended the load.
    """
    start()
    parameters = llama_cpp.llama_model_default_params()
    if progress is not None:
        tell = progress
        # Bound to a name: it must live as long as the load.
        callback = llama_cpp.llama_progress_callback(lambda share, _: tell(share))
        parameters.progress_callback = callback
    parameters.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    parameters.lazy_mode = llama_cpp.LLAMA_LAZY_MODE_OFF
    # Weights in a layout of llama.cpp's own would be computed by its kernels, not by ours. And its
    # layout for AMX ends the process where a compiler leaves out, as GCC 12 does, what it writes
    # into the tiles' configuration: seen with Q8_0 on a Xeon.
    parameters.use_extra_bufts = kernels() is None and "AMX_INT8 = 1" not in features()
    parameters.n_gpu_layers = -1
    parameters.vocab_only = vocabulary_only
    with routed_log():
        handle = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    if not handle:
        raise LoadFailed(f"{path.name} could not be loaded; the log says why.")
    return int(handle)


def set_embeddings(context: int, *, on: bool) -> None:
    """Pool the context's next calls, or compute them for the KV cache alone."""
    quick.llama_set_embeddings(context, on)


def clear_memory(memory: int, *, wipe: bool) -> None:
    """Forget every sequence in a KV cache; its bytes stay unless `wipe` (milliseconds)."""
    quick.llama_memory_clear(memory, wipe)


def read_rows(context: int, count: int, width: int) -> Matrix:
    """Return the pooled rows of sequences 0 to count - 1, float32[count, width].

    Raises:
        InferenceFailed: a row is missing, or has numbers that are not finite.
    """
    assert count > 0
    assert width > 0
    out = np.empty((count, width), np.float32)
    row_bytes = width * out.itemsize
    for index in range(count):
        source = quick.llama_get_embeddings_seq(context, index)
        if not source:
            raise InferenceFailed("llama.cpp gave no result for a sequence")
        # The next call overwrites the source: copy now.
        ctypes.memmove(out.ctypes.data + index * row_bytes, source, row_bytes)
    if not np.isfinite(out).all():
        raise InferenceFailed("the model gave numbers that are not finite")
    return out


def read_means(context: int, lengths: npt.NDArray[np.int32], width: int) -> Matrix:
    """Return the mean of each run of so many tokens, float32[len(lengths), width].

    The runs follow each other from the context's first output on.

    Raises:
        InferenceFailed: the rows are missing, or have numbers that are not finite.
    """
    assert lengths.min() > 0
    source = llama_cpp.llama_get_embeddings(context)
    if not source:
        raise InferenceFailed("llama.cpp gave no result for a batch")
    rows = np.ctypeslib.as_array(source, (int(lengths.sum()), width))
    starts = np.cumsum(lengths) - lengths
    out: Matrix = np.add.reduceat(rows, starts, axis=0)
    out /= lengths[:, np.newaxis]
    if not np.isfinite(out).all():
        raise InferenceFailed("the model gave numbers that are not finite")
    return out


def pointer(array: npt.NDArray[np.generic], kind: type) -> "ctypes._Pointer[ctypes._CData]":
    """Return the array's memory as the library takes it; the array must outlive the call."""
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
