"""Parquet: the only door to pyarrow, which is an extra."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appliance.core.errors import InvalidRequest

ROWS = 1_024
"""Read, and written, at one time."""


def _library() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional: without it all other formats work
        import pyarrow.parquet as pq  # noqa: PLC0415 - as above
    except ImportError:
        raise InvalidRequest(
            "Parquet needs pyarrow: pip install 'gigarouter[parquet]' (or pyarrow)"
        ) from None
    return pa, pq


def require() -> None:
    """Refuse a machine without pyarrow.

    Raises:
        InvalidRequest: it is not installed; the message says how to.
    """
    _library()


def columns(path: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        InvalidRequest: it is no Parquet file, or pyarrow is not installed.
    """
    return [str(name) for name in _opened(path).schema_arrow.names]


def texts(path: Path, column: str) -> Iterator[tuple[object, float]]:
    """Yield each value of a column, and the share of the file that is read.

    Raises:
        InvalidRequest: it is no Parquet file, or pyarrow is not installed.
    """
    file = _opened(path)
    total, done = max(1, file.metadata.num_rows), 0
    for batch in file.iter_batches(batch_size=ROWS, columns=[column]):
        for value in batch.column(0).to_pylist():
            done += 1
            yield value, done / total


def _opened(path: Path) -> Any:
    pa, pq = _library()
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InvalidRequest(f"{path}: {error}") from None


def write(path: Path, dimensions: int, blocks: Iterator[Any]) -> None:
    """Write rows of vectors, float32[n, dimensions], as columns `index` and `embedding`."""
    pa, pq = _library()
    kind = pa.list_(pa.float32(), dimensions)
    schema = pa.schema([("index", pa.int64()), ("embedding", kind)])
    first = 0
    with pq.ParquetWriter(path, schema) as writer:
        for block in blocks:
            numbers = pa.array(range(first, first + len(block)), pa.int64())
            flat = pa.array(block.reshape(-1), pa.float32())
            vectors = pa.FixedSizeListArray.from_arrays(flat, dimensions)
            writer.write_table(pa.Table.from_arrays([numbers, vectors], schema=schema))
            first += len(block)
