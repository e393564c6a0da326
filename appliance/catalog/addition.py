"""Addition: a local model's way into the user's catalogue.

Owns the order of its steps: read what the file says, copy or convert it under a name of its own,
try it, and only then swap file and entry. Whatever ends it before or within the swap, the models
are afterwards what they were before it or what they are with it.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import msgspec

from appliance.catalog.catalog import Catalog
from appliance.catalog.folder import read_settings
from appliance.catalog.header import Header
from appliance.catalog.header_parser import parse_header, read_header
from appliance.catalog.importer import (
    assumptions,
    describe,
    describe_folder,
    folder_assumptions,
)
from appliance.catalog.kept_words import replacement
from appliance.catalog.leftovers import Leftovers
from appliance.catalog.spec import ID_PATTERN, ModelSpec
from appliance.catalog.user_catalog import DoesNotFit, UserCatalog, require_free
from appliance.core.errors import (
    InvalidCatalog,
    InvalidModelFile,
    InvalidRequest,
    LoadFailed,
)
from appliance.store.digests import Digests
from appliance.store.regular_file import open_regular

Stage: TypeAlias = Literal["look", "copy", "convert", "hash", "try", "swap"]
Progress: TypeAlias = Callable[[Stage, int, int], None]
"""Told the stage, the bytes that are done and all there are (0: it cannot be measured); what it
raises ends the addition."""

CHUNK_BYTES = 1 << 20
DISK_SPARE_BYTES = 100_000_000
"""Bytes that a copy leaves free: the books are on this disk, too."""
DIGITS = 12
"""Of the digest in a file's name."""


def unwatched(_stage: Stage, _done: int, _total: int) -> None:
    """Let the addition go on."""


@dataclass(frozen=True, slots=True)
class Added:
    """A model that was added."""

    id: str
    notes: list[str]
    """What was assumed or could not be kept, a line each."""


@dataclass(frozen=True, slots=True)
class Addition:
    """One local model to add."""

    user_catalog: UserCatalog
    source: Path
    """A GGUF file or a Hugging Face folder."""
    digests: Digests
    screen: Callable[[ModelSpec, Callable[[], None]], None]
    """Raises `LoadFailed` for a file that is not to be used; what it is given besides is called
    meanwhile, and ends it by what it raises."""
    model_id: str | None = None
    """None: the source's name."""
    task: str | None = None
    pooling: str | None = None
    replace: bool = False
    """Whether a model with this id is replaced."""
    progress: Progress = field(default=unwatched)

    @property
    def name(self) -> str:
        """Return the id that the model will have."""
        return (
            self.model_id if self.model_id is not None else self.source.name.removesuffix(".gguf")
        )

    def run(self) -> Added:
        """Add the model.

        Raises:
            InvalidModelFile: the file or folder is damaged, or of a kind that cannot be served.
            InvalidRequest: the id, the task or the pooling is wrong, or there is such a model.
            InvalidCatalog: the user's catalogue cannot be read.
        """
        if ID_PATTERN.fullmatch(self.name) is None:
            raise InvalidRequest(
                f"{self.name!r} cannot be a model's id; "
                "give one with --id, like name or owner/name",
                param="id",
            )
        require_free(self.user_catalog.current(), self.name, replace=self.replace)
        if not self.source.exists():
            raise InvalidModelFile(self.source, "there is no such file or folder")
        models = self.user_catalog.models
        models.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Leftovers(models).part() as part:
            bring = self._converted if self.source.is_dir() else self._copied
            try:
                entry, notes = bring(part)
            except OSError as error:
                raise InvalidModelFile(
                    self.source, f"cannot be copied or converted: {error.strerror or error}"
                ) from None
            size = part.stat().st_size
            digest = self.digests.sha256(part, lambda read: self.progress("hash", read, size))
            entry |= {"file": file_name(self.name, digest), "sha256": digest}
            self._try(entry, part)
            return Added(self.name, notes + self._swap(entry, part))

    def _copied(self, part: Path) -> tuple[dict[str, Any], list[str]]:
        """Copy a GGUF file; refuse it by its header first."""
        try:
            stream = open_regular(self.source)
        except OSError as error:
            raise InvalidModelFile(
                self.source, f"cannot be read: {error.strerror or error}"
            ) from None
        with stream:
            header = parse_header(self.source, stream)
            entry = self._described(header)
            self._preview(entry)
            self._require_room(header.file_size)
            before = _identity(stream)
            digest = self._copy(stream, part, header.file_size)
            if _identity(stream) != before:
                raise InvalidModelFile(self.source, "it changed while it was copied; add it again")
        self.digests.remember(part, digest)
        return entry, assumptions(header, entry, pooling=self.pooling)

    def _copy(self, stream: BinaryIO, part: Path, size: int) -> str:
        """Copy a file for its owner only, durably, and return its SHA-256.

        A link would be faster, but llama.cpp maps the file into memory: a program that then changed
        the source in place would crash the server.
        """
        content, done = hashlib.sha256(), 0
        stream.seek(0)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as copy:
            # No further than its size: a file that grows must not be copied for ever.
            while chunk := stream.read(min(CHUNK_BYTES, size - done)):
                self.progress("copy", done, size)
                content.update(chunk)
                copy.write(chunk)
                done += len(chunk)
            copy.flush()
            os.fsync(handle)
        return content.hexdigest()

    def _converted(self, part: Path) -> tuple[dict[str, Any], list[str]]:
        """Convert a folder; refuse it by its settings first."""
        # Late: it brings the writer of GGUF files, which no start of a server needs.
        from appliance.catalog.convert import convert_folder  # noqa: PLC0415

        settings = read_settings(self.source)
        described = describe_folder(settings, name=self.name, task=self.task, pooling=self.pooling)
        self._preview({**described, "file": "any.gguf"})
        convert_folder(
            self.source, part, name=self.name, progress=partial(self.progress, "convert")
        )
        part.chmod(0o600)
        try:
            entry = self._described(read_header(part))
        except InvalidModelFile as error:
            raise InvalidModelFile(self.source, error.reason) from None
        entry["max_input_tokens"] = min(entry["max_input_tokens"], settings.tokens_max)
        return entry, folder_assumptions(settings, pooling=self.pooling)

    def _described(self, header: Header) -> dict[str, Any]:
        return describe(
            header, name=self.name, file="any.gguf", task=self.task, pooling=self.pooling
        )

    def _try(self, entry: Mapping[str, Any], part: Path) -> None:
        """Try the file under the name that it has now."""
        self.progress("try", 0, 0)
        spec = msgspec.structs.replace(self._preview(entry).find(self.name), path=part)
        try:
            self.screen(spec, lambda: self.progress("try", 0, 0))
        except (LoadFailed, InvalidModelFile) as error:
            self.progress("try", 0, 0)  # a trial that was cut off found nothing
            # The user knows the file that was given, not the one that was tried.
            reason = error.message.replace(str(part), part.name)
            reason = reason.removeprefix(f"{part.name}: ").removeprefix(
                f"{part.name} is not used: "
            )
            raise InvalidModelFile(
                self.source, reason.replace(part.name, self.source.name)
            ) from None

    def _preview(self, entry: Mapping[str, Any]) -> Catalog:
        """Return the catalogue as it would be with the entry."""
        try:
            return self.user_catalog.preview(self._change(entry, []))
        except DoesNotFit as error:
            raise self._misfit(error) from None

    def _misfit(self, error: DoesNotFit) -> InvalidRequest:
        return InvalidRequest(f"{self.name!r} does not fit into the catalogue: {error}", param="id")

    def _change(self, entry: Mapping[str, Any], notes: list[str]) -> Callable[[Any], None]:
        return replacement(self.user_catalog, entry, notes)

    def _swap(self, entry: Mapping[str, Any], part: Path) -> list[str]:
        """Put the file and its entry in place of the former ones; return what was lost."""
        self.progress("swap", 0, 0)
        models, notes = self.user_catalog.models, list[str]()
        leftovers, file = Leftovers(models), models / str(entry["file"])
        with self.user_catalog.changing():
            former = self.user_catalog.current()
            require_free(former, self.name, replace=self.replace)
            note = leftovers.note([file, *self._replaced(former)])
            try:
                with self.user_catalog.draft(self._change(entry, notes)) as after:
                    self._require_own_file(after, file)
                    leftovers.place(part, file)
            except DoesNotFit as error:
                raise self._misfit(error) from None
            finally:
                with suppress(InvalidCatalog):  # somebody edits it now: the next start settles it
                    leftovers.settle(note, self.user_catalog.current())
        return notes

    def _replaced(self, catalog: Catalog) -> list[Path]:
        """Return the file that nobody needs once the model is replaced, unless it is the source."""
        replaced = [spec.path for spec in catalog if spec.id == self.name]
        return [path for path in replaced if path != self.source.resolve()]

    def _require_own_file(self, catalog: Catalog, file: Path) -> None:
        """Refuse a file name that another model uses."""
        others = [s.id for s in catalog if s.path == file.resolve() and s.id != self.name]
        if others:
            raise InvalidRequest(f"{file.name} belongs to {others[0]!r}", param="id")

    def _require_room(self, size: int) -> None:
        """Refuse a file that the disk has no room for."""
        free = shutil.disk_usage(self.user_catalog.models).free
        if size + DISK_SPARE_BYTES > free:
            raise InvalidModelFile(
                self.source,
                f"it has {size / 1e6:,.0f} MB and the disk of {self.user_catalog.models} has room "
                f"for {max(0, free - DISK_SPARE_BYTES) / 1e6:,.0f} MB",
            )


def file_name(model_id: str, digest: str) -> str:
    """Return what an added model's file is called: no other id and no other content has it."""
    return f"{model_id.replace('/', '+')}-{digest[:DIGITS]}.gguf"


def _identity(stream: BinaryIO) -> tuple[int, int]:
    found = os.fstat(stream.fileno())
    return found.st_size, found.st_mtime_ns
