"""Leftovers: files that a change of the models here leaves behind when it is cut off.

Owns the names of files that are being made, and a note beside the models of which files nobody may
need after a change. What the note names is removed once no entry of the catalogue uses it: by the
change itself, or by the next start when the process was killed.
"""

import glob
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.catalog.spec import ModelSpec
from appliance.store.datadir import sync_directory, write_private

log = logging.getLogger("gigarouter.models")

PREFIX = ".adding-"
"""Of files that are being made; no model's id begins with a dot."""
NOTE = ".json"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is not needed any more in one folder of models."""

    models: Path

    @contextmanager
    def part(self) -> Iterator[Path]:
        """Yield a name for a file that is being made; what has it at the end is removed."""
        path = self._path(".gguf")
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            self._remove_beside(path)

    def note(self, paths: Sequence[Path]) -> Path:
        """Write down, durably, files of which some will be nobody's after a change.

        What is not in the folder of models is left out.

        Raises:
            OSError: it cannot be written; the change must not begin.
        """
        root = self.models.resolve()
        here = [path.resolve() for path in paths if path.resolve().is_relative_to(root)]
        note = self._path(NOTE)
        names = [str(path.relative_to(root)) for path in here]
        write_private(note, msgspec.json.encode(names))
        return note

    def settle(self, note: Path, catalog: Iterable[ModelSpec]) -> None:
        """Remove the files that a note names and no entry uses, and then the note."""
        names: list[str] = []
        with suppress(OSError, msgspec.MsgspecError):
            names = msgspec.json.decode(note.read_bytes(), type=list[str])
        used = {spec.path for spec in catalog}
        for path in ((self.models / name).resolve() for name in names):
            if path.is_relative_to(self.models.resolve()) and path not in used:
                path.unlink(missing_ok=True)
                self._remove_beside(path)
        sync_directory(self.models)
        note.unlink(missing_ok=True)

    def sweep(self, catalog: Iterable[ModelSpec] | None) -> None:
        """Remove what processes left that were killed; call it while no other one makes files.

        Without a catalogue, because it cannot be read, only unfinished files are removed.
        """
        try:
            for path in (*self.models.glob(f"{PREFIX}*"), *self.models.glob(f".{PREFIX}*")):
                if path.suffix != NOTE:
                    path.unlink(missing_ok=True)
                elif catalog is not None:
                    self.settle(path, catalog)
        except OSError as error:
            log.warning("files that an unfinished change left are not removed: %s", error)

    def place(self, part: Path, file: Path) -> None:
        """Give a finished file its name, durably, and what was found of it in its trial."""
        part.replace(file)
        for beside in self.models.glob(f"{glob.escape(part.name)}.*.json"):
            beside.replace(file.with_name(file.name + beside.name.removeprefix(part.name)))
        sync_directory(self.models)

    def _path(self, suffix: str) -> Path:
        return self.models / f"{PREFIX}{secrets.token_hex(8)}{suffix}"

    def _remove_beside(self, path: Path) -> None:
        """Remove how a file was tried and measured."""
        for beside in self.models.glob(f"{glob.escape(path.name)}.*.json"):
            beside.unlink(missing_ok=True)
