"""HeaderParser: from the first bytes of a GGUF file to its header, without llama.cpp.

Owns every check that can be made on the header alone, so that native code is never the first to
meet a damaged file. Nothing in the file is trusted.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from appliance.catalog.cursor import Cursor, MetadataValue
from appliance.catalog.foreign import HEAD_BYTES, kind_of_bytes
from appliance.catalog.header import Header, Tensor
from appliance.core.errors import InvalidModelFile
from appliance.store.regular_file import open_regular

KEYS_MAX = 10_000
"""Metadata keys; real files have fewer than a hundred."""
TENSORS_MAX = 65_536
"""Tensors; the largest real files have a few thousand."""
TENSOR_NAME_BYTES_MAX = 63
"""llama.cpp keeps names in 64 bytes with a final zero."""
DIMENSIONS_MAX = 4
"""Dimensions of one tensor, as in ggml."""
ELEMENTS_MAX = 1 << 40
"""Elements of one tensor; keeps every size far from 64-bit overflow."""
ALIGNMENT_DEFAULT = 32
"""Bytes, when the file names no alignment."""
ALIGNMENT_MAX = 1024 * 1024
"""Bytes."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = "general.alignment"

BLOCKS: Mapping[int, tuple[int, int]] = MappingProxyType(
    {
        0: (1, 4),  # F32
        1: (1, 2),  # F16
        2: (32, 18),  # Q4_0
        3: (32, 20),  # Q4_1
        6: (32, 22),  # Q5_0
        7: (32, 24),  # Q5_1
        8: (32, 34),  # Q8_0
        10: (256, 84),  # Q2_K
        11: (256, 110),  # Q3_K
        12: (256, 144),  # Q4_K
        13: (256, 176),  # Q5_K
        14: (256, 210),  # Q6_K
        16: (256, 66),  # IQ2_XXS
        17: (256, 74),  # IQ2_XS
        18: (256, 98),  # IQ3_XXS
        19: (256, 50),  # IQ1_S
        20: (32, 18),  # IQ4_NL
        21: (256, 110),  # IQ3_S
        22: (256, 82),  # IQ2_S
        23: (256, 136),  # IQ4_XS
        24: (1, 1),  # I8
        25: (1, 2),  # I16
        26: (1, 4),  # I32
        27: (1, 8),  # I64
        28: (1, 8),  # F64
        29: (256, 56),  # IQ1_M
        30: (1, 2),  # BF16
        34: (256, 54),  # TQ1_0
        35: (256, 66),  # TQ2_0
        39: (32, 17),  # MXFP4
        40: (64, 36),  # NVFP4
        41: (128, 18),  # Q1_0
        42: (64, 18),  # Q2_0
    }
)
"""ggml type to (elements of a block, bytes of a block). Q8_1 and Q8_K are absent: they are
ggml's intermediate formats and are never stored in a file."""


def read_header(path: Path) -> Header:
    """Read and check the header of a GGUF file; no weights are read.

    Raises:
        InvalidModelFile: the file cannot be read, is not GGUF, breaks a bound, or declares a
            tensor that does not lie inside it.
    """
    try:
        with open_regular(path) as stream:
            return parse_header(path, stream)
    except OSError as error:
        raise InvalidModelFile(path, f"cannot be read: {error.strerror or error}") from error


def parse_header(path: Path, stream: BinaryIO) -> Header:
    """Read and check the header of an open GGUF file from its start; `path` is for messages.

    Raises:
        InvalidModelFile: as `read_header`.
        OSError: it cannot be read.
    """
    file_size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if not head:
        raise InvalidModelFile(path, "it is empty: the file ends at 0 bytes")
    if not head.startswith(_MAGIC):
        kind = kind_of_bytes(head)
        reason = "not a GGUF file" + (f": it is {kind}" if kind else "")
        raise InvalidModelFile(path, reason)
    stream.seek(0)
    return _parse(path, Cursor(path, stream), file_size)


def _parse(path: Path, cursor: Cursor, file_size: int) -> Header:
    cursor.take(len(_MAGIC))
    version = cursor.u32()
    if version not in _VERSIONS and int.from_bytes(version.to_bytes(4), "little") in _VERSIONS:
        cursor.refuse("its byte order is the other one (big-endian); fetch the little-endian file")
    if version not in _VERSIONS:
        cursor.refuse(f"GGUF version {version}; 2 and 3 are read")
    tensor_count = cursor.u64()
    key_count = cursor.u64()
    if tensor_count > TENSORS_MAX:
        cursor.refuse(f"{tensor_count} tensors; at most {TENSORS_MAX} are read")
    if key_count > KEYS_MAX:
        cursor.refuse(f"{key_count} metadata keys; at most {KEYS_MAX} are read")
    metadata = _metadata(cursor, key_count)
    tensors = _tensors(cursor, tensor_count, _alignment(cursor, metadata), file_size)
    return Header(path, file_size, MappingProxyType(metadata), MappingProxyType(tensors))


def _metadata(cursor: Cursor, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(count):
        key = cursor.string("a metadata key")
        if key in metadata:
            cursor.refuse(f"{key}: duplicate metadata key")
        metadata[key] = cursor.value(cursor.u32(), key)
    return metadata


def _tensors(cursor: Cursor, count: int, alignment: int, file_size: int) -> dict[str, Tensor]:
    rows: dict[str, Tensor] = {}
    for _ in range(count):
        row = _tensor(cursor, alignment)
        if row.name in rows:
            cursor.refuse(f"{row.name}: duplicate tensor name")
        rows[row.name] = row
    # Offsets count from the first aligned byte after the table, known only now.
    data_start = -(-cursor.position // alignment) * alignment
    tensors = {name: replace(row, offset=data_start + row.offset) for name, row in rows.items()}
    for name, tensor in tensors.items():
        end = tensor.offset + tensor.size
        if end > file_size:
            cursor.refuse(
                f"{name}: ends at byte {end} of a file of {file_size} bytes; "
                "a part of the file is missing"
            )
    return tensors


def _alignment(cursor: Cursor, metadata: Mapping[str, MetadataValue]) -> int:
    alignment = metadata.get(_ALIGNMENT_KEY, ALIGNMENT_DEFAULT)
    if type(alignment) is not int:
        cursor.refuse(f"{_ALIGNMENT_KEY}: expected int, found {type(alignment).__name__}")
    if not 0 < alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
        cursor.refuse(f"{_ALIGNMENT_KEY}: {alignment} is no power of two up to {ALIGNMENT_MAX}")
    return alignment


def _tensor(cursor: Cursor, alignment: int) -> Tensor:
    """Read one row of the tensor table; its offset is still relative to the data."""
    name = cursor.string("a tensor name")
    if not 0 < len(name.encode()) <= TENSOR_NAME_BYTES_MAX:
        cursor.refuse(f"a tensor name has not 1 to {TENSOR_NAME_BYTES_MAX} bytes: {name[:80]!r}")
    dimensions = cursor.u32()
    if not 0 < dimensions <= DIMENSIONS_MAX:
        cursor.refuse(f"{name}: {dimensions} dimensions; 1 to {DIMENSIONS_MAX} are possible")
    shape = tuple(reversed([cursor.u64() for _ in range(dimensions)]))
    elements = math.prod(shape)
    if not 0 < elements <= ELEMENTS_MAX:
        cursor.refuse(f"{name}: shape {shape} has not 1 to {ELEMENTS_MAX} elements")
    kind = cursor.u32()
    if kind not in BLOCKS:
        cursor.refuse(f"{name}: unknown tensor type {kind}")
    block_elements, block_bytes = BLOCKS[kind]
    if shape[-1] % block_elements:
        cursor.refuse(f"{name}: rows of {shape[-1]} do not divide into blocks of {block_elements}")
    offset = cursor.u64()
    if offset % alignment:
        cursor.refuse(f"{name}: offset {offset} is not a multiple of {alignment}")
    return Tensor(name, shape, kind, offset, elements // block_elements * block_bytes)
