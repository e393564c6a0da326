"""Weights order: everything that is needed to load a model's weights, in whichever process."""

from pathlib import Path

import msgspec

from appliance.catalog.headers import header_of
from appliance.engine.backend import EngineLimits, Weights
from appliance.engine.load_progress import LoadProgress
from appliance.settings import prepare_native_library


class WeightsOrder(msgspec.Struct, frozen=True):
    """A file that was checked, and how it is to be computed."""

    path: str
    pooling: str
    limits: EngineLimits
    segments: bool
    """True: the second of two texts is marked by token types."""
    memory_bytes: int = 0
    """Bytes of address space that a process of its own may take; 0: any."""


def open_here(order: WeightsOrder, progress: LoadProgress | None = None) -> Weights:
    """Return a model's weights, loaded into this process.

    Raises:
        LoadFailed: the file cannot be used, or there is no memory for it.
    """
    # Imported late: this loads native libraries, which most commands do not need.
    prepare_native_library()
    from appliance.engine.llama.segments import Segments  # noqa: PLC0415 - see above
    from appliance.engine.llama.weights import LlamaWeights  # noqa: PLC0415 - see above

    path = Path(order.path)
    segments = None
    if order.segments:
        # Imported late: it takes a quarter of a second, and few models need it.
        from appliance.catalog.weights import read_tensor_f32  # noqa: PLC0415 - see above

        header = header_of(path)
        types = read_tensor_f32(header, "token_types.weight")
        segments = Segments(read_tensor_f32(header, "token_embd.weight"), types[1] - types[0])
    return LlamaWeights(
        path,
        pooling=order.pooling,
        limits=order.limits,
        segments=segments,
        progress=progress,
    )
