"""Rows: vectors as JSON, without a Python object for each number."""

from collections.abc import Iterator

import numpy as np
import orjson

from appliance.engine import vectors
from appliance.engine.vectors import Vectors
from appliance.tasks.embed import Embedded
from appliance.wire.questions import VectorType

SLICE_ROWS = 32
"""orjson keeps the GIL: a large answer is written in slices, between which other threads get it."""


def slices(found: Embedded, kind: VectorType) -> Iterator[tuple[int, Vectors]]:
    """Yield the rows in one kind of numbers, a few at a time, each with the first one's index."""
    for first in range(0, len(found.rows), SLICE_ROWS):
        rows = vectors.in_type(found.rows[first : first + SLICE_ROWS], kind)
        yield first, np.ascontiguousarray(rows)


def json_list(found: Embedded, kind: VectorType, *, base64: bool = False) -> bytes:
    """Return a list of vectors, each a list of numbers or a text in base64."""
    parts = [json_rows(rows, base64=base64)[1:-1] for _, rows in slices(found, kind)]
    return b"[" + b",".join(parts) + b"]"


def json_rows(rows: Vectors, *, base64: bool) -> bytes:
    """Return a few rows as a list."""
    if base64:
        return orjson.dumps([vectors.to_base64(row) for row in rows])
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
