"""Cursor: the primitive values of a GGUF header, read forward and never past a bound.

Owns the buffer, the position and the bounds on strings, arrays and the header as a whole.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NoReturn, TypeAlias

from appliance.core.errors import InvalidModelFile

Scalar: TypeAlias = bool | int | float | str
"""One value of GGUF metadata."""

MetadataValue: TypeAlias = Scalar | tuple[Scalar, ...]
"""One value, or a flat array of values of one type."""

HEADER_BYTES_MAX = 256 * 1024 * 1024
"""Bytes from the start of the file to the end of the tensor table."""
STRING_BYTES_MAX = 1024 * 1024
"""UTF-8 bytes of one string; the longest honest ones are chat templates."""
ARRAY_ITEMS_MAX = 1_000_000
"""Items of one array; the largest vocabularies have about 260 thousand tokens."""
ARRAY_ITEMS_TOTAL_MAX = 4_000_000
"""Items of all arrays together; bounds the Python objects that a small file can ask for."""

_READ_BYTES = 1024 * 1024

_BOOL = 7
_STRING = 8
_ARRAY = 9
_NUMBERS: Mapping[int, str] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
)
"""GGUF value type to `struct` code, for the types that are plain numbers."""

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A forward reader over the first bytes of a file."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._stream = stream
        self._buffer = bytearray()
        self._array_items = 0
        self.position = 0
        """Bytes read so far; also the offset of the next value in the file."""

    def __repr__(self) -> str:
        return f"<Cursor {self._path.name} at {self.position}>"

    def refuse(self, reason: str) -> NoReturn:
        """Raise InvalidModelFile for this file."""
        raise InvalidModelFile(self._path, reason)

    def take(self, count: int) -> bytes:
        """Read exactly `count` bytes.

        Raises:
            InvalidModelFile: the file or the bound ends first.
        """
        self._fill(count)
        start = self.position
        self.position = start + count
        return bytes(self._buffer[start : self.position])

    def u32(self) -> int:
        """Read an unsigned 32-bit integer."""
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        """Read an unsigned 64-bit integer."""
        return int(_U64.unpack(self.take(8))[0])

    def string(self, what: str) -> str:
        """Read one string; `what` names it in a refusal."""
        return self._strings(1, what)[0]

    def value(self, kind: int, key: str) -> MetadataValue:
        """Read the value of `key`, whose GGUF value type is `kind`.

        Raises:
            InvalidModelFile: an unknown type, a nested array, a broken bound, or too few bytes.
        """
        if kind != _ARRAY:
            return self._items(kind, 1, key)[0]
        item_kind = self.u32()
        count = self.u64()
        if item_kind == _ARRAY:
            self.refuse(f"{key}: arrays of arrays are not supported")
        if count > ARRAY_ITEMS_MAX:
            self.refuse(f"{key}: array of {count} items; at most {ARRAY_ITEMS_MAX} are read")
        self._array_items += count
        if self._array_items > ARRAY_ITEMS_TOTAL_MAX:
            self.refuse(f"{key}: more than {ARRAY_ITEMS_TOTAL_MAX} array items in all")
        return self._items(item_kind, count, key)

    def _items(self, kind: int, count: int, key: str) -> tuple[Scalar, ...]:
        if kind == _STRING:
            return self._strings(count, key)
        if kind == _BOOL:
            flags = self.take(count)
            if flags.strip(b"\x00\x01"):
                self.refuse(f"{key}: a bool is neither 0 nor 1")
            return tuple(map(bool, flags))
        code = _NUMBERS.get(kind)
        if code is None:
            self.refuse(f"{key}: unknown value type {kind}")
        numbers = struct.Struct(f"<{count}{code}")
        return numbers.unpack(self.take(numbers.size))

    def _strings(self, count: int, what: str) -> tuple[str, ...]:
        # One loop over local names: a vocabulary has up to a million strings.
        found: list[str] = []
        buffer, unpack_from = self._buffer, _U64.unpack_from
        for _ in range(count):
            start = self.position + _U64.size
            if start > len(buffer):
                self._fill(_U64.size)
            length = unpack_from(buffer, self.position)[0]
            if length > STRING_BYTES_MAX:
                self.refuse(
                    f"{what}: string of {length} bytes; at most {STRING_BYTES_MAX} are read"
                )
            self.position = start
            end = start + length
            if end > len(buffer):
                self._fill(length)
            try:
                found.append(buffer[start:end].decode())
            except UnicodeDecodeError:
                self.refuse(f"{what}: a string is not UTF-8")
            self.position = end
        return tuple(found)

    def _fill(self, count: int) -> None:
        end = self.position + count
        if end > HEADER_BYTES_MAX:
            self.refuse(f"the header is larger than {HEADER_BYTES_MAX} bytes")
        buffer = self._buffer
        while end > len(buffer):
            # The buffer grows in place (others hold a reference) and doubles, so that a long
            # header costs few reads and a short one does not cost a large one.
            wanted = max(end - len(buffer), len(buffer), _READ_BYTES)
            chunk = self._stream.read(min(wanted, HEADER_BYTES_MAX - len(buffer)))
            if not chunk:
                self.refuse(f"the file ends at {len(buffer)} bytes, inside the header")
            buffer += chunk
