"""Safetensors: a weights file as named arrays, read without trust.

Owns what is checked before and beside the `safetensors` library, which checks the format itself:
the length of the header, names given twice, the number of dimensions. The library's own reading is
not used, because it maps the file into memory, where a file that becomes shorter ends the process,
and because NumPy has no bfloat16.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

import numpy as np
import safetensors
from numpy.typing import NDArray

from appliance.core.errors import InvalidModelFile
from appliance.store.regular_file import open_regular

Array: TypeAlias = NDArray[np.float32]

HEADER_BYTES_MAX = 16 * 1024 * 1024
"""Longest JSON header, in bytes; real ones have about 100 bytes for each tensor."""
DIMENSIONS_MAX = 8
"""Most dimensions of one tensor."""

_LENGTH_BYTES = 8
_ITEM_BYTES: Mapping[str, int] = MappingProxyType({"F32": 4, "F16": 2, "BF16": 2})
"""Bytes of one item of each type that can be read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Type, shape and position of one tensor of a file."""

    dtype: str
    """The format's name, for instance `F16`. A model of floats may also contain integers."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""


@dataclass(frozen=True, slots=True)
class Safetensors:
    """A file whose header passed every check of `read_safetensors`."""

    path: Path
    tensors: Mapping[str, Stored] = field(repr=False)
    """By name, sorted; read-only."""

    def read_f32(self, name: str) -> Array:
        """Return one tensor as a new `float32[*shape]`.

        Raises:
            InvalidModelFile: there is no such tensor, it holds no F32, F16 or BF16, or the file
                changed since its header was read.
        """
        stored = self.tensors.get(name)
        if stored is None:
            _refuse(self.path, f"{name}: there is no such tensor")
        if stored.dtype not in _ITEM_BYTES:
            _refuse(self.path, f"{name}: is {stored.dtype}; F32, F16 and BF16 are supported")
        size = math.prod(stored.shape) * _ITEM_BYTES[stored.dtype]
        try:
            raw = np.fromfile(self.path, dtype=np.uint8, count=size, offset=stored.offset)
        except OSError as error:
            _refuse(self.path, f"cannot be read: {error.strerror or error}")
        if raw.size != size:
            _refuse(self.path, f"{name}: the file became shorter while it was read")
        if stored.dtype == "F32":
            floats = raw.view("<f4").astype(np.float32, copy=False)
        elif stored.dtype == "F16":
            floats = raw.view("<f2").astype(np.float32)
        else:
            # A bfloat16 is the upper 16 bits of a float32.
            bits = raw.view("<u2").astype(np.uint32)
            bits <<= 16
            floats = bits.view(np.float32)
        return floats.reshape(stored.shape)


def read_safetensors(path: Path) -> Safetensors:
    """Read and check the header of a safetensors file; no weights are read.

    Raises:
        InvalidModelFile: the file cannot be read, or its header breaks a rule of the format.
    """
    try:
        _check_length(path)
        with safetensors.safe_open(path, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in sorted(opened.keys())}
            found = {
                name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()
            }
        offsets = _offsets(path)
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror or error}")
    except safetensors.SafetensorError as error:
        raise InvalidModelFile(path, str(error)) from error
    if offsets.keys() != found.keys():
        _refuse(path, "the file changed while its header was read")
    tensors = {name: Stored(*found[name], offsets[name]) for name in found}
    for name, stored in tensors.items():
        if len(stored.shape) > DIMENSIONS_MAX:
            reason = f"{len(stored.shape)} dimensions; at most {DIMENSIONS_MAX} are read"
            _refuse(path, f"{name}: {reason}")
    return Safetensors(path, MappingProxyType(tensors))


def _check_length(path: Path) -> None:
    """Refuse a header that is longer than we read; the library allows more."""
    with open_regular(path) as stream:
        raw = stream.read(_LENGTH_BYTES)
    length = int.from_bytes(raw, "little")
    if len(raw) == _LENGTH_BYTES and length > HEADER_BYTES_MAX:
        _refuse(path, f"header of {length} bytes; at most {HEADER_BYTES_MAX} are read")


def _offsets(path: Path) -> dict[str, int]:
    """Return where each tensor begins, in bytes from the start of the file.

    The library does not tell, and takes the last of several tensors with one name. Call it for a
    header that the library has accepted.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            _refuse(path, "the header names something twice")
        return found

    with open_regular(path) as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        raw = stream.read(min(length, HEADER_BYTES_MAX))
    start = _LENGTH_BYTES + length
    try:
        entries = json.loads(raw, object_pairs_hook=unique)
        entries.pop("__metadata__", None)
        return {name: start + int(entry["data_offsets"][0]) for name, entry in entries.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = "the file changed while its header was read"
        raise InvalidModelFile(path, reason) from error


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InvalidModelFile(path, reason)
