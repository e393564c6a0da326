"""Devices: where this build of llama.cpp can compute, and how much memory is free there."""

import ctypes

from appliance.engine.device import Device
from appliance.engine.llama.backends import registry
from appliance.engine.llama.library import start

KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator"}
"""`enum ggml_backend_dev_type`."""


def devices() -> list[Device]:
    """Return every device, the processor among them."""
    start()
    library = registry()
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


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
