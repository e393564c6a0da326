"""ResultFiles: the two files of a batch, that of answers and that of errors, as one.

Owns what is found in them when a run begins, and which files a batch's key gets at its end.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.batches.results import ResultFile
from appliance.core.errors import StoreFailed
from appliance.ledger.batches import Batch
from appliance.ledger.files import StoredFile


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """Both files, open."""

    output: ResultFile
    errors: ResultFile
    done: bytearray
    """Of each line 1 if it was answered, 2 if it has an error, 0 if neither."""
    counts: tuple[int, int]
    """How many lines were answered and how many have an error."""

    @classmethod
    def open(cls, folder: Path, batch: Batch, lines_max: int) -> "ResultFiles":
        """Open both files and find which lines are answered; seconds of work at most.

        Raises:
            StoreFailed, OSError: what was written is not there.
        """
        done = bytearray(lines_max + 1)
        counts = []
        output = ResultFile(folder / batch.output_file)
        errors = ResultFile(folder / batch.error_file)
        known = (output, batch.output_bytes), (errors, batch.error_bytes)
        try:
            for mark, (file, size) in enumerate(known, start=1):
                counts.append(0)
                for number in file.recover(batch.id, size):
                    counts[-1] += not done[number]
                    done[number] = mark
        except (StoreFailed, OSError):
            output.close()
            errors.close()
            raise
        return cls(output, errors, done, (counts[0], counts[1]))

    def close(self) -> None:
        """Close both."""
        for file in (self.output, self.errors):
            file.close()


def found(folder: Path, batch: Batch) -> Batch:
    """Return a batch with the bytes of its files that the disk has, of those that it knew of."""

    def size(name: str, known: int) -> int:
        try:
            return min(known, os.lstat(folder / name).st_size)
        except OSError:
            return 0

    return msgspec.structs.replace(
        batch,
        output_bytes=size(batch.output_file, batch.output_bytes),
        error_bytes=size(batch.error_file, batch.error_bytes),
    )


def stored(batch: Batch, now_us: int, expires_us: int) -> Iterator[StoredFile]:
    """Yield the files that the batch's key gets."""
    for file_id, size, kind in (
        (batch.output_file, batch.output_bytes, "output"),
        (batch.error_file, batch.error_bytes, "error"),
    ):
        if size:
            name = f"{batch.id}_{kind}.jsonl"
            yield StoredFile(file_id, batch.key_id, name, "batch_output", size, now_us, expires_us)
