"""Devices: where this build of llama.cpp can compute, and how much memory is free there.

Owns the calls of ggml's device registry (ggml-backend.h), which the binding leaves out.
"""

import ctypes
from pathlib import Path

from appliance.core.once import once
from appliance.engine.device import Device
from appliance.engine.llama.library import facts, start

KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator"}
"""`enum ggml_backend_dev_type`."""


def devices() -> list[Device]:
    """Return every device, the processor among them."""
    start()
    library = _library()
    found = []
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                name=_text(library.ggml_backend_dev_name(device)),
                description=_text(library.ggml_backend_dev_description(device)),
                kind=KINDS.get(library.ggml_backend_dev_type(device), "accelerator"),
                memory=total.value,
                free=free.value,
            )
        )
    return found


@once
def _library() -> ctypes.CDLL:
    folder = Path(facts()["library"]).parent
    path = next(p for p in sorted(folder.iterdir()) if p.name.startswith(("libggml.", "ggml.")))
    library = ctypes.CDLL(str(path))
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = (ctypes.c_size_t,)
    library.ggml_backend_dev_type.restype = ctypes.c_int
    library.ggml_backend_dev_type.argtypes = (ctypes.c_void_p,)
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        call = getattr(library, name)
        call.restype, call.argtypes = ctypes.c_char_p, (ctypes.c_void_p,)
    size = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.restype = None
    library.ggml_backend_dev_memory.argtypes = (ctypes.c_void_p, size, size)
    return library


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
