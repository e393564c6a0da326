"""Pull: download a catalogue model.

Decides which files are downloaded, and has a folder of safetensors converted. It gives the file no
name and does not write the catalogue: it yields the file and what was found, for whoever tries it.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance.catalog.header import Header
from appliance.catalog.header_parser import read_header
from appliance.catalog.spec import ModelSpec, Source
from appliance.core.errors import DownloadFailed, InvalidModelFile
from appliance.hub.claims import Claims
from appliance.hub.downloads import Download
from appliance.hub.fetch import complete, fetch, part_of
from appliance.hub.part import Watch, on_disk
from appliance.hub.remote import Hub, RemoteFile
from appliance.hub.retry import Asker, asked
from appliance.store.datadir import sync_directory, sync_file
from appliance.store.digests import Digests

WEIGHTS = "model.safetensors"
FOLDER_NEEDS = ("config.json", WEIGHTS)
FOLDER_MAY_HAVE = (
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "1_Pooling/config.json",
)
HEADER_BYTES = (1 << 22, 1 << 24, 1 << 26)
"""How many first bytes of a GGUF file are read, one after the other, until they hold the whole
header: a large vocabulary takes many megabytes."""


@dataclass(frozen=True, slots=True)
class Found:
    """The revision, size and digest of what was downloaded."""

    revision: str
    bytes: int
    sha256: str
    """Digest of the GGUF file, or of the safetensors file that it was converted from."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A model file that is complete and verified, and has no name of its own yet."""

    path: Path
    found: Found
    is_awaited: Callable[[], bool]
    """Whether another download waits for the same content."""
    folder: Path | None = None
    """What it was converted from."""

    def give(self, target: Path) -> None:
        """Give the file its name; a file of that name is replaced in one step.

        Raises:
            DownloadFailed: the disk refuses.
        """
        with on_disk(target):
            self.path.replace(target)
            self.path.unlink(missing_ok=True)  # both were links of one file: nothing was renamed
            sync_directory(target.parent)
        self._remove_folder()

    def discard(self) -> None:
        """Remove what was fetched, unless another download waits for it."""
        if self.folder is not None or not self.is_awaited():
            self.path.unlink(missing_ok=True)
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self.folder is not None and not self.is_awaited():
            shutil.rmtree(self.folder, ignore_errors=True)


class Puller:
    """Downloads models of one hub; of several that are the same content, one at a time."""

    def __init__(self, hub: Hub, digests: Digests) -> None:
        self._hub = hub
        self._digests = digests
        self._claims = Claims()

    def __repr__(self) -> str:
        """Return the hub and what is worked on."""
        return f"<Puller {self._hub!r} {self._claims!r}>"

    @contextmanager
    def pull(
        self, spec: ModelSpec, download: Download, twins_of: Callable[[str], Sequence[Path]]
    ) -> Iterator[Arrival]:
        """Yield a model's file, complete and verified; until the block ends it is this download's.

        `twins_of` returns files of this machine that have a sha256. If the block fails, what was
        fetched stays for the next pull, unless it is discarded.

        Raises:
            DownloadFailed: it cannot be downloaded, or differs from the catalogue.
            DownloadCancelled: the download was cancelled.
            InvalidModelFile: it is of a kind that cannot be served.
        """
        source = spec.entry.source
        if source is None:
            raise DownloadFailed(f"{spec.id} has no source on the hub")
        if spec.path.is_dir():
            raise DownloadFailed(f"{spec.path} is a folder; move it away and pull again")
        with on_disk(spec.path.parent):
            spec.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if source.format == "gguf":
            with self._pull_gguf(spec, source, download, twins_of) as arrival:
                yield arrival
        else:
            with self._pull_folder(spec, source, download) as arrival:
                yield arrival

    @contextmanager
    def _pull_gguf(
        self,
        spec: ModelSpec,
        source: Source,
        download: Download,
        twins_of: Callable[[str], Sequence[Path]],
    ) -> Iterator[Arrival]:
        assert source.file is not None
        file = asked(partial(self._hub.find, source.repo, source.file, source.revision), download)
        if file.kind != "sha256":
            raise DownloadFailed(f"{source.repo}/{source.file}: the hub names no sha256 of it")
        require_named(source, file)
        part = part_of(spec.path, file)
        with self._claims.hold(file.digest, download):
            download.expect(file.bytes)
            complete(
                self._hub,
                file,
                part,
                watch=_watch(download),
                digests=self._digests,
                twins=[path for path in twins_of(file.digest) if path.is_file()],
            )
            arrival = Arrival(
                part,
                Found(file.revision, file.bytes, file.digest),
                lambda: self._claims.is_awaited(file.digest),
            )
            _require_architecture(spec, arrival)
            yield arrival

    @contextmanager
    def _pull_folder(
        self, spec: ModelSpec, source: Source, download: Download
    ) -> Iterator[Arrival]:
        """Download the files of a safetensors model and convert them."""
        # Late: it brings the writer of GGUF files, which no start of a server needs.
        from appliance.catalog.convert import convert_folder  # noqa: PLC0415

        files = self._files(source, download)
        weights = files[1]
        require_named(source, weights)
        total = sum(file.bytes for file in files)
        # It stays after a failure: the next pull resumes from it.
        folder = spec.path.with_name(f"{weights.revision[:12]}-{weights.digest[:12]}.parts")
        with self._claims.hold(folder.name, download):
            download.expect(total)
            with on_disk(folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            done = 0
            for file in files:
                target = folder / file.path
                with on_disk(target):
                    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not target.is_file():
                    watch = _watch(download, before=done)
                    fetch(self._hub, file, target, watch=watch, digests=self._digests)
                done += file.bytes
                download.progress(done)
            converted = folder.with_suffix(".converted")
            with on_disk(converted):
                convert_folder(
                    folder,
                    converted,
                    name=spec.id,
                    progress=lambda _done, _total: download.require_wanted(),
                )
                sync_file(converted)
            arrival = Arrival(
                converted,
                Found(files[0].revision, weights.bytes, weights.digest),
                lambda: self._claims.is_awaited(folder.name),
                folder,
            )
            _require_architecture(spec, arrival)
            yield arrival

    def _files(self, source: Source, download: Download) -> list[RemoteFile]:
        """Return what of a repository is fetched: the configuration, the weights, and more."""

        def find(path: str, revision: str | None) -> RemoteFile:
            return asked(partial(self._hub.find, source.repo, path, revision), download)

        names = asked(partial(self._hub.files, source.repo, source.revision), download)
        missing = set(FOLDER_NEEDS) - set(names)
        if missing:
            raise DownloadFailed(f"{source.repo} has no {min(missing)}; it cannot be converted")
        wanted = [*FOLDER_NEEDS, *(name for name in FOLDER_MAY_HAVE if name in names)]
        first = find(wanted[0], source.revision)
        # All files of one commit, even if another one is pushed in the meantime.
        others = [find(name, first.revision) for name in wanted[1:]]
        return [first, *others]


def look(hub: Hub, file: RemoteFile, scratch: Path, asker: Asker) -> Header:
    """Return the header of a remote GGUF file without downloading the rest of it.

    `scratch` is the path of a temporary file, which is removed at the end.

    Raises:
        DownloadFailed: the hub refuses it or cannot be reached.
        InvalidModelFile: it is not a GGUF file, or a damaged one.
    """
    try:
        for size in HEADER_BYTES:
            content = asked(partial(hub.read, file, size), asker)
            # As long as the real file, because the reader checks that tensors end within it.
            with scratch.open("wb") as stream:
                stream.write(content)
                stream.truncate(file.bytes)
            try:
                return read_header(scratch)
            except InvalidModelFile:
                if size >= file.bytes or size == HEADER_BYTES[-1]:
                    raise
    finally:
        scratch.unlink(missing_ok=True)
    raise AssertionError(file)


def require_named(source: Source, file: RemoteFile) -> None:
    """Refuse a file of the hub that differs from the catalogue.

    Raises:
        DownloadFailed: its digest, size or revision differs.
    """
    for what, wanted, found in (
        ("sha256", source.sha256, file.digest),
        ("size", source.bytes, file.bytes),
        ("revision", source.revision, file.revision),
    ):
        if wanted is not None and wanted != found:
            raise DownloadFailed(
                f"{file.repo}/{file.path}: the hub says {what} {found}, the catalogue {wanted}; "
                "nothing was fetched"
            )


def _require_architecture(spec: ModelSpec, arrival: Arrival) -> None:
    """Discard a file of another architecture than the catalogue's, or of none."""
    wanted = spec.entry.architecture
    try:
        found = read_header(arrival.path).architecture
    except InvalidModelFile:
        arrival.discard()
        raise
    if wanted and wanted != found:
        arrival.discard()
        raise DownloadFailed(f"{spec.id}: the file is of {found}, the catalogue says {wanted}")


def _watch(download: Download, *, before: int = 0) -> Watch:
    """Return what tells a download of one file's progress, after so many bytes of others."""

    def fetched(have: int) -> None:
        download.enter("fetching")
        download.progress(before + have)

    def checked(read: int) -> None:
        download.enter("checking")
        download.progress(before + read)

    return Watch(download.cancelled, fetched, checked, download.clock)
