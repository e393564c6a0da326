"""Backends: ggml's libraries that compute, one for each kind of device.

Owns the calls of ggml's registry (ggml-backend.h), which the binding leaves out. A build for one
processor has its backends linked; a build for all of them has a library for each generation, and
ggml loads the best that this processor can run.
"""

import ctypes
from collections.abc import Mapping
from pathlib import Path

from llama_cpp import llama_cpp

from appliance.core.once import once

Signatures = Mapping[str, tuple[type | None, tuple[type, ...]]]
LLAMA: ctypes.CDLL = llama_cpp._lib  # noqa: SLF001 - published nowhere else
NAME: str = LLAMA._name  # noqa: SLF001 - as above
HANDLE: int = LLAMA._handle  # noqa: SLF001 - as above
PATH = Path(NAME).resolve()
"""Of llama.cpp's library; ggml's lie beside it."""


class _SymbolInfo(ctypes.Structure):
    """`Dl_info` of dlfcn.h."""

    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def declare(library: ctypes.CDLL | None, signatures: Signatures) -> bool:
    """Declare a library's functions by name; return whether it has all of them, else none is."""
    if not all(hasattr(library, name) for name in signatures):
        return False
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return True


@once
def registry() -> ctypes.CDLL:
    """Return ggml's registry with every backend of this build in it."""
    # Found through llama.cpp's own library, so that it is the registry that llama.cpp asks.
    library = ctypes.CDLL(NAME, handle=HANDLE)
    declare(library, _SIGNATURES)
    if library.ggml_backend_reg_count() == 0:
        library.ggml_backend_load_all_from_path(str(PATH.parent).encode())
    return library


@once
def processor_path() -> Path | None:
    """Return the library that computes on the processor; None where a build has none."""
    library = registry()
    backend = library.ggml_backend_reg_by_name(b"CPU")
    if backend is None:
        return None
    address = library.ggml_backend_reg_get_proc_address(backend, b"ggml_threadpool_new")
    found = _SymbolInfo()
    locate = ctypes.CDLL(None).dladdr
    locate.restype, locate.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p)
    if address is None or not locate(address, ctypes.byref(found)) or not found.dli_fname:
        return None
    return Path(found.dli_fname.decode())


@once
def processor() -> ctypes.PyDLL | None:
    """Return the library that computes on the processor, as it is loaded already.

    It keeps the GIL: its calls that we make take nanoseconds, and giving the GIL up can cost
    milliseconds.
    """
    path = processor_path()
    return ctypes.PyDLL(str(path)) if path is not None else None


_SIZES = ctypes.POINTER(ctypes.c_size_t)
_SIGNATURES = {
    "ggml_backend_reg_count": (ctypes.c_size_t, ()),
    "ggml_backend_load_all_from_path": (None, (ctypes.c_char_p,)),
    "ggml_backend_reg_by_name": (ctypes.c_void_p, (ctypes.c_char_p,)),
    "ggml_backend_reg_get_proc_address": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)),
    "ggml_backend_dev_count": (ctypes.c_size_t, ()),
    "ggml_backend_dev_get": (ctypes.c_void_p, (ctypes.c_size_t,)),
    "ggml_backend_dev_type": (ctypes.c_int, (ctypes.c_void_p,)),
    "ggml_backend_dev_name": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "ggml_backend_dev_description": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "ggml_backend_dev_memory": (None, (ctypes.c_void_p, _SIZES, _SIZES)),
}
