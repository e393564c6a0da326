"""Devices: where models can be computed on this machine.

Owns what is told of them. It loads the native library late: most commands need none.
"""

from dataclasses import dataclass, replace

from appliance.settings import available_bytes, prepare_native_library


@dataclass(frozen=True, slots=True)
class Device:
    """Where models can be computed."""

    name: str
    description: str
    kind: str
    """`cpu`, `gpu`, `igpu` or `accelerator`."""
    memory: int
    """Bytes; 0: not known."""
    free: int


def native_devices() -> list[Device]:
    """Return where llama.cpp can compute here, the processor among them."""
    prepare_native_library()
    from appliance.engine.llama.devices import devices  # noqa: PLC0415 - native: it takes a while

    # llama.cpp takes all of the machine's memory for free.
    return [
        replace(each, free=min(each.memory, available_bytes() or each.free))
        if each.kind == "cpu"
        else each
        for each in devices()
    ]


def native_facts() -> dict[str, str]:
    """Return what can be said of the installed llama.cpp.

    Raises:
        ImportError, OSError, RuntimeError: it cannot be loaded.
    """
    prepare_native_library()
    from appliance.engine.llama.library import facts  # noqa: PLC0415 - as above

    return facts()
