"""Header: what a GGUF file contains besides its weights, with typed questions about it.

Owns the types `Header` and `Tensor`, and the check that a value has the type that a caller expects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar, overload

from appliance.catalog.cursor import MetadataValue, Scalar
from appliance.core.errors import InvalidModelFile

_T = TypeVar("_T", bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies in the file."""

    name: str
    shape: tuple[int, ...]
    """numpy order, the reverse of GGUF's: a token matrix reads as (n_vocab, n_embd)."""
    kind: int
    """ggml type number, a key of `header_parser.BLOCKS`."""
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the weights; made by `header_parser.read_header`, which checks it."""

    path: Path
    file_size: int
    """Bytes of the whole file."""
    metadata: Mapping[str, MetadataValue] = field(repr=False)
    """Key to value, in file order; read-only."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """Name to tensor, in file order; read-only."""

    @property
    def architecture(self) -> str:
        """The model family, for instance `bert`.

        Raises:
            InvalidModelFile: the file names none.
        """
        found = self.get_str("general.architecture")
        if not found:
            _refuse(self.path, "general.architecture is missing")
        return found

    @overload
    def get_int(self, key: str) -> int | None: ...
    @overload
    def get_int(self, key: str, default: int) -> int: ...
    def get_int(self, key: str, default: int | None = None) -> int | None:
        """Return an integer, or `default` if the key is absent.

        Raises:
            InvalidModelFile: the value has another type.
        """
        return self._scalar(key, int, default)

    @overload
    def get_str(self, key: str) -> str | None: ...
    @overload
    def get_str(self, key: str, default: str) -> str: ...
    def get_str(self, key: str, default: str | None = None) -> str | None:
        """Return a string; as `get_int`."""
        return self._scalar(key, str, default)

    @overload
    def get_bool(self, key: str) -> bool | None: ...
    @overload
    def get_bool(self, key: str, default: bool) -> bool: ...  # noqa: FBT001 - reads as a dict's get
    def get_bool(self, key: str, default: bool | None = None) -> bool | None:  # noqa: FBT001 - same
        """Return a bool; as `get_int`."""
        return self._scalar(key, bool, default)

    @overload
    def get_float(self, key: str) -> float | None: ...
    @overload
    def get_float(self, key: str, default: float) -> float: ...
    def get_float(self, key: str, default: float | None = None) -> float | None:
        """Return a float; as `get_int`."""
        return self._scalar(key, float, default)

    def get_list(self, key: str) -> tuple[Scalar, ...]:
        """Return an array, empty if the key is absent.

        Raises:
            InvalidModelFile: the value is not an array.
        """
        value = self.metadata.get(key, ())
        if not isinstance(value, tuple):
            _refuse(self.path, f"{key}: expected an array, found {type(value).__name__}")
        return value

    def get_strings(self, key: str) -> tuple[str, ...]:
        """Return an array of strings; as `get_list`."""
        return self._array(key, str)

    def get_ints(self, key: str) -> tuple[int, ...]:
        """Return an array of integers; as `get_list`."""
        return self._array(key, int)

    def arch_int(self, suffix: str) -> int:
        """Return the integer under `{architecture}.{suffix}`, for instance `context_length`.

        Raises:
            InvalidModelFile: the key is absent or not an integer.
        """
        key = f"{self.architecture}.{suffix}"
        found = self.get_int(key)
        if found is None:
            _refuse(self.path, f"{key} is missing")
        return found

    def _scalar(self, key: str, kind: type[_T], default: _T | None) -> _T | None:
        value = self.metadata.get(key)
        if value is None:
            return default
        # Exact types: isinstance takes a bool for an int, and a file with one there is wrong.
        if type(value) is not kind:
            _refuse(self.path, f"{key}: expected {kind.__name__}, found {type(value).__name__}")
        return value

    def _array(self, key: str, kind: type[_T]) -> tuple[_T, ...]:
        items = self.get_list(key)
        found = tuple(item for item in items if type(item) is kind)
        if len(found) != len(items):
            _refuse(self.path, f"{key}: expected an array of {kind.__name__}")
        return found


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InvalidModelFile(path, reason)
