"""Formats: vectors as the file that was asked for.

Owns NPY and JSON lines; Parquet is written behind its own door. A file is made under another name
and gets its own when it is whole.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from appliance.bulk import parquet
from appliance.core.errors import InvalidRequest

Blocks = Iterator[npt.NDArray[np.float32]]
FORMATS = ("npy", "jsonl", "parquet")
ENDINGS = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def format_of(path: Path, asked: str | None) -> str:
    """Return the format of a file that is to be made.

    Raises:
        InvalidRequest: its ending says none, and none was asked for; or pyarrow is missing.
    """
    found = asked or ENDINGS.get(path.suffix)
    if found is None:
        raise InvalidRequest(f"{path} ends with none of {', '.join(ENDINGS)}; say --format")
    if found == "parquet":
        parquet.require()
    return found


def write(path: Path, kind: str, rows: int, dimensions: int, blocks: Blocks) -> None:
    """Write vectors, durably, and give the file its name.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    made = path.with_name(f"{path.name}.made")
    try:
        WRITERS[kind](made, rows, dimensions, blocks)
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _npy(path: Path, rows: int, dimensions: int, blocks: Blocks) -> None:
    head = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for block in blocks:
            file.write(block.tobytes())


def _jsonl(path: Path, _rows: int, _dimensions: int, blocks: Blocks) -> None:
    index = 0
    with path.open("wb") as file:
        for block in blocks:
            for row in block:
                line = {"index": index, "embedding": row}
                file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
                index += 1


def _parquet(path: Path, _rows: int, dimensions: int, blocks: Blocks) -> None:
    parquet.write(path, dimensions, blocks)


WRITERS: dict[str, Callable[[Path, int, int, Blocks], None]] = {
    "npy": _npy,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
