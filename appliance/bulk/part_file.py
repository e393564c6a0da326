"""PartFile: vectors that are there already, while a file of them is being made.

Owns its form: a head of fixed size that says of what they are the vectors, then rows of float32.
One that was left by a run that ended early is gone on with, if it is of the same input and model.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from appliance.core.errors import InvalidRequest

HEAD_BYTES = 4_096
BLOCK_ROWS = 4_096
NUMBER_BYTES = 4


class Head(msgspec.Struct, frozen=True):
    """What the rows are vectors of."""

    order: str
    """A digest of the input and of how it is embedded."""
    fingerprint: str
    """Of the model."""
    dimensions: int


class PartFile:
    """The vectors so far."""

    def __init__(self, path: Path, order: str | None, *, restart: bool) -> None:
        """Open what is there; `order` None: the input can be read once, so nothing is gone on with.

        Raises:
            InvalidRequest: it is of another input, or made in another way.
            OSError: it cannot be opened.
        """
        self.path = path
        self._order = order or ""
        is_fresh = order is None or restart
        self.head, self.rows = (None, 0) if is_fresh else self._found()
        self._file = path.open("wb" if self.head is None else "r+b")
        if self.head is not None:
            self._file.truncate(HEAD_BYTES + self.rows * self.head.dimensions * NUMBER_BYTES)
            self._file.seek(0, os.SEEK_END)

    def _found(self) -> tuple[Head | None, int]:
        """Return the head of what is there, and how many vectors follow it."""
        try:
            with self.path.open("rb") as file:
                head = file.read(HEAD_BYTES)
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return None, 0
        if len(head) < HEAD_BYTES:
            return None, 0  # nothing is in it
        try:
            found = msgspec.json.decode(head.rstrip(b" "), type=Head)
        except msgspec.DecodeError:
            found = None
        if found is None or found.order != self._order:
            raise InvalidRequest(
                f"{self.path} is of another input, or was made in another way; --restart begins "
                "anew"
            )
        return found, (size - HEAD_BYTES) // (found.dimensions * NUMBER_BYTES)

    def add(self, vectors: list[bytes], fingerprint: str) -> None:
        """Write rows behind the others.

        Raises:
            InvalidRequest: they are of another model, or of another size.
            OSError: they cannot be written.
        """
        dimensions = len(vectors[0]) // NUMBER_BYTES
        if self.head is None:
            self.head = Head(self._order, fingerprint, dimensions)
            self._file.write(msgspec.json.encode(self.head).ljust(HEAD_BYTES))
        if (self.head.fingerprint, self.head.dimensions) != (fingerprint, dimensions):
            raise InvalidRequest(
                "the model has changed since this file was begun, and its vectors do not go "
                "together; --restart begins anew"
            )
        self._file.write(b"".join(vectors))
        self.rows += len(vectors)

    def flush(self) -> None:
        """Hand all of it to the system: it outlives this process."""
        self._file.flush()

    def close(self) -> None:
        """Close it; what is in it stays."""
        self._file.close()

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all rows, float32[n, dimensions], some at a time; close it before."""
        if self.head is None:
            return
        width = self.head.dimensions * NUMBER_BYTES
        with self.path.open("rb") as file:
            file.seek(HEAD_BYTES)
            while content := file.read(BLOCK_ROWS * width):
                yield np.frombuffer(content, dtype="<f4").reshape(-1, self.head.dimensions)


def order_of(values: object) -> str:
    """Return a digest of an input and of how it is embedded."""
    return hashlib.sha256(msgspec.json.encode(values)).hexdigest()
