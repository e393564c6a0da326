"""Texts: the rows of a file, one after the other, whatever its format.

Owns the formats that are read and the choice of a column. No file is in memory as a whole.
"""

import csv
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from appliance.bulk import parquet
from appliance.core.errors import InvalidRequest

FORMATS = ("jsonl", "csv", "tsv", "parquet", "text")
ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
STANDARD_INPUT = "-"
USUAL_COLUMN = "text"
FIELD_CHARS_MAX = 10_000_000
LINE_BYTES_MAX = 32_000_000


class Texts:
    """What is to be embedded, in order."""

    def __init__(self, source: str, kind: str | None, column: str | None) -> None:
        """Prepare to read `source`, a path or `-`; the format is `kind`, or what its ending says.

        Raises:
            InvalidRequest: the format or the column is not there.
            OSError: the file is not there.
        """
        self.source = source
        self.path = None if source == STANDARD_INPUT else Path(source)
        self.kind = kind or ENDINGS.get("" if self.path is None else self.path.suffix, "text")
        self._column = column
        self.share = 0.0
        """How much of it was read; 0 where that is not known."""
        if self.path is not None:
            self.path.stat()
        if self.kind == "parquet":
            parquet.require()
            if self.path is None:
                raise InvalidRequest("Parquet is read from a file, not from standard input")

    def identity(self) -> list[object] | None:
        """Return what tells this input from another one; None: it can be read once."""
        if self.path is None:
            return None
        found = self.path.stat()
        if not stat.S_ISREG(found.st_mode):
            return None  # a pipe
        return [str(self.path.resolve()), found.st_size, found.st_mtime_ns, self.kind, self._column]

    def rows(self) -> Iterator[str]:
        """Yield each text.

        Raises:
            InvalidRequest: a row has none; the message names it.
        """
        if self.kind == "parquet":
            assert self.path is not None
            values = self._of_parquet(self.path)
        else:
            values = self._of_stream()
        for number, value in enumerate(values, start=1):
            if not isinstance(value, str):
                raise InvalidRequest(f"{self.source}: row {number} has no text, but {value!r:.50}")
            yield value

    def _of_parquet(self, path: Path) -> Iterator[object]:
        column = self._chosen(parquet.columns(path))
        for value, share in parquet.texts(path, column):
            self.share = share
            yield value

    def _of_stream(self) -> Iterator[object]:
        if self.path is None:
            # Its own buffer: that of sys.stdin cannot be ended while a thread waits in it.
            opened = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115 - no path
        else:
            opened = self.path.open("rb")
        size = 0 if self.path is None else os.fstat(opened.fileno()).st_size
        with opened as file:
            lines = self._lines(file, size)
            if self.kind == "text":
                yield from (line.rstrip("\r\n") for line in lines)
            elif self.kind == "jsonl":
                yield from self._of_json(lines)
            else:
                yield from self._of_table(lines, "\t" if self.kind == "tsv" else ",")

    def _lines(self, file: BinaryIO, size: int) -> Iterator[str]:
        read = number = 0
        while line := file.readline(LINE_BYTES_MAX):
            number += 1
            if len(line) == LINE_BYTES_MAX:
                raise InvalidRequest(f"{self.source}: line {number} is longer than {len(line)} B")
            read += len(line)
            self.share = min(1.0, read / size) if size else 0.0
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest(f"{self.source}: line {number} is not UTF-8") from None

    def _of_json(self, lines: Iterator[str]) -> Iterator[object]:
        column = self._column or USUAL_COLUMN
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError):
                raise InvalidRequest(f"{self.source}: line {number} is not JSON") from None
            if isinstance(value, str) and self._column is None:
                yield value
            elif isinstance(value, dict) and column in value:
                yield value[column]
            else:
                raise InvalidRequest(
                    f"{self.source}: line {number} has no {column!r}; --column names another"
                )

    def _of_table(self, lines: Iterator[str], delimiter: str) -> Iterator[object]:
        csv.field_size_limit(FIELD_CHARS_MAX)
        reader = csv.reader(lines, delimiter=delimiter)
        try:
            head = next(reader, [])
            index = head.index(self._chosen(head))
            for row in reader:
                if row:
                    yield row[index] if index < len(row) else None
        except csv.Error as error:
            raise InvalidRequest(f"{self.source}: line {reader.line_num}: {error}") from None

    def _chosen(self, names: list[str]) -> str:
        """Return the column to read.

        Raises:
            InvalidRequest: it is not there, or there are several and none was named.
        """
        if self._column is None and len(names) == 1:
            return names[0]
        column = self._column or USUAL_COLUMN
        if column not in names:
            raise InvalidRequest(
                f"{self.source} has no column {column!r}; --column is one of "
                f"{', '.join(names)[:500]}"
            )
        return column
