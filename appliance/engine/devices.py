"""Devices: where models can be computed on this machine.

Owns the questions about them. The native library is loaded late: most commands need none.
"""

from appliance import machine
from appliance.core.once import once
from appliance.engine.device import Device
from appliance.settings import prepare_native_library


def native_devices() -> list[Device]:
    """Return where llama.cpp can compute here, the processor among them.

    The processor's memory is what this process may use: its container's, if it runs in one.
    llama.cpp would name the machine's, all of it as free.
    """
    prepare_native_library()
    from appliance.engine.llama.devices import devices  # noqa: PLC0415 - native: it takes a while

    memory, available = machine.memory_bytes(), machine.available_bytes()
    return [
        device.bounded(memory=memory, available=available) if device.kind == "cpu" else device
        for device in devices()
    ]


def native_facts() -> dict[str, str]:
    """Return the installed llama.cpp's version, kernels, features and path.

    Raises:
        ImportError, OSError, RuntimeError: it cannot be loaded.
    """
    prepare_native_library()
    from appliance.engine.llama.library import facts  # noqa: PLC0415 - as above

    return facts()


def native_peak(steps: int) -> int:
    """Compute in registers as fast as our kernels can, and return the operations done.

    0: this engine has none of our kernels.
    """
    from appliance.engine.llama.library import peak_operations  # noqa: PLC0415 - as above

    return peak_operations(steps)


@once
def native_keeps_logits() -> bool:
    """Return whether this engine keeps logits that nobody reads; see `capacity.Room`.

    An engine that cannot be loaded computes nothing: what is said of it does not matter.
    """
    try:
        return native_facts()["memory"] != "gigarouter's"
    except (ImportError, OSError, RuntimeError):
        return False
