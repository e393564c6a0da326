"""Safetensors: a weights file as named arrays, read without trust.

Owns the format's checks: the length of the header, the types, and that the tensors fill the file
exactly, with no holes and no overlaps.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import InvalidModelFile

Array: TypeAlias = NDArray[np.float32]

HEADER_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of the JSON header; a real one has about 100 for each tensor."""
DIMENSIONS_MAX = 8
"""Dimensions of one tensor."""

_LENGTH_BYTES = 8
_METADATA_KEY = "__metadata__"
_ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 1,
        "U8": 1,
        "I8": 1,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "U16": 2,
        "I16": 2,
        "F16": 2,
        "BF16": 2,
        "U32": 4,
        "I32": 4,
        "F32": 4,
        "U64": 8,
        "I64": 8,
        "F64": 8,
    }
)
"""Bytes of one item. All are known, because a float model may carry an integer buffer; only F32,
F16 and BF16 can be read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor lies in the file."""

    dtype: str
    """The format's own name, for instance `F16`."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Safetensors:
    """A file whose header passed every check of `read_safetensors`."""

    path: Path
    tensors: Mapping[str, Stored] = field(repr=False)
    """Name to place, sorted by name; read-only."""

    def read_f32(self, name: str) -> Array:
        """Return one tensor as a new `float32[*shape]`.

        Raises:
            InvalidModelFile: there is no such tensor, it holds no F32, F16 or BF16, or the file
                changed since its header was read.
        """
        stored = self.tensors.get(name)
        if stored is None:
            _refuse(self.path, f"{name}: there is no such tensor")
        if stored.dtype not in {"F32", "F16", "BF16"}:
            _refuse(self.path, f"{name}: is {stored.dtype}; F32, F16 and BF16 are supported")
        try:
            raw = np.fromfile(self.path, dtype=np.uint8, count=stored.size, offset=stored.offset)
        except OSError as error:
            _refuse(self.path, f"cannot be read: {error.strerror or error}")
        if raw.size != stored.size:
            _refuse(self.path, f"{name}: the file became shorter while it was read")
        if stored.dtype == "F32":
            floats = raw.view("<f4").astype(np.float32, copy=False)
        elif stored.dtype == "F16":
            floats = raw.view("<f2").astype(np.float32)
        else:
            # A bfloat16 is the upper half of a float32.
            floats = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        return floats.reshape(stored.shape)


def read_safetensors(path: Path) -> Safetensors:
    """Read and check the header of a safetensors file; no weights are read.

    Raises:
        InvalidModelFile: the file cannot be read, or its header breaks a rule of the format.
    """
    try:
        with path.open("rb") as stream:
            file_size = stream.seek(0, 2)
            stream.seek(0)
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if file_size < _LENGTH_BYTES or length > file_size - _LENGTH_BYTES:
                _refuse(path, "the file ends inside its header")
            if length > HEADER_BYTES_MAX:
                _refuse(path, f"header of {length} bytes; at most {HEADER_BYTES_MAX} are read")
            raw = stream.read(length)
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror or error}")
    entries = _entries(path, raw)
    start = _LENGTH_BYTES + length
    tensors = {name: _stored(path, name, entries[name], start) for name in sorted(entries)}
    _check_filled(path, tensors, start, file_size)
    return Safetensors(path, MappingProxyType(tensors))


def _entries(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            _refuse(path, "the header names something twice")
        return found

    try:
        entries = json.loads(raw.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidModelFile(path, "the header is not JSON") from error
    if not isinstance(entries, dict):
        _refuse(path, "the header is not a JSON object")
    entries.pop(_METADATA_KEY, None)
    return entries


def _stored(path: Path, name: str, entry: Any, start: int) -> Stored:
    if not isinstance(entry, dict):
        _refuse(path, f"{name}: is not described by an object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        _refuse(path, f"{name}: unknown dtype {dtype!r}")
    shape = _naturals(path, f"{name}: shape", entry.get("shape"))
    if len(shape) > DIMENSIONS_MAX:
        _refuse(path, f"{name}: {len(shape)} dimensions; at most {DIMENSIONS_MAX} are read")
    offsets = _naturals(path, f"{name}: data_offsets", entry.get("data_offsets"))
    size = math.prod(shape) * _ITEM_BYTES[dtype]
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:  # noqa: PLR2004 - begin and end
        _refuse(path, f"{name}: data_offsets {list(offsets)} do not hold {size} bytes")
    return Stored(dtype, shape, start + offsets[0], size)


def _naturals(path: Path, what: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(item) is not int or item < 0 for item in value):
        _refuse(path, f"{what} is not a list of natural numbers")
    return tuple(value)


def _check_filled(path: Path, tensors: Mapping[str, Stored], start: int, file_size: int) -> None:
    end = start
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].size)):
        if stored.offset != end:
            _refuse(path, f"{name}: begins at byte {stored.offset}, expected {end}")
        end += stored.size
    if end != file_size:
        _refuse(path, f"the tensors end at byte {end} of a file of {file_size} bytes")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InvalidModelFile(path, reason)
