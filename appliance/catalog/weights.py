"""Weights: single tensors of a GGUF file as float32 arrays.

Reads the bytes at the offsets of a checked `Header` and converts them.
"""

from typing import TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray

from appliance.catalog.header import Header
from appliance.core.errors import InvalidModelFile

Array: TypeAlias = NDArray[np.float32]

FLOAT32_BYTES_MAX = 4 * 1024**3
"""Largest tensor after dequantization, in bytes; a token matrix of 256k by 4096 just fits."""

_F32, _F16, _BF16 = 0, 1, 30


def read_tensor_f32(header: Header, name: str) -> Array:
    """Return one tensor as a new array `float32[*shape]`, dequantized if it is quantized.

    Raises:
        InvalidModelFile: there is no such tensor, it is larger than `FLOAT32_BYTES_MAX`, its type
            cannot be converted to float32, or the file changed since its header was read.
    """
    path = header.path
    tensor = header.tensors.get(name)
    if tensor is None:
        raise InvalidModelFile(path, f"{name}: there is no such tensor")
    if int(np.prod(tensor.shape, dtype=np.int64)) * 4 > FLOAT32_BYTES_MAX:
        raise InvalidModelFile(path, f"{name}: too large to be read as float32")
    try:
        raw = np.fromfile(path, dtype=np.uint8, count=tensor.size, offset=tensor.offset)
    except OSError as error:
        raise InvalidModelFile(path, f"cannot be read: {error.strerror or error}") from error
    if raw.size != tensor.size:
        raise InvalidModelFile(path, f"{name}: the file became shorter while it was read")
    return _floats(header, name, tensor.kind, raw).reshape(tensor.shape)


def _floats(header: Header, name: str, kind: int, raw: NDArray[np.uint8]) -> Array:
    if kind == _F32:
        return raw.view("<f4").astype(np.float32, copy=False)
    if kind == _F16:
        return raw.view("<f2").astype(np.float32)
    if kind == _BF16:
        # A bfloat16 is the upper 16 bits of a float32.
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    try:
        quantization = gguf.GGMLQuantizationType(kind)
        floats: Array = gguf.quants.dequantize(raw, quantization)
    except (ValueError, NotImplementedError) as error:
        raise InvalidModelFile(header.path, f"{name}: type {kind} has no float32 form") from error
    return floats
