"""Pull: download a catalogue model and put its file in place.

Decides which files are downloaded, and has a folder of safetensors converted. It does not write the
catalogue: it returns what was found.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance.catalog.convert import convert_folder
from appliance.catalog.header import Header
from appliance.catalog.header_parser import read_header
from appliance.catalog.spec import ModelSpec, Source
from appliance.core.errors import DownloadFailed, InvalidModelFile
from appliance.hub.downloads import Download
from appliance.hub.fetch import fetch
from appliance.hub.remote import Hub, RemoteFile
from appliance.store.datadir import sync_directory, sync_file

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


def pull(hub: Hub, spec: ModelSpec, download: Download) -> Found:
    """Download a model to the path of its entry; the path exists only once it is verified.

    Raises:
        DownloadFailed: it cannot be downloaded, or differs from the catalogue.
        DownloadCancelled: the download was cancelled.
        InvalidModelFile: it is of a kind that cannot be served.
    """
    source = spec.entry.source
    if source is None:
        raise DownloadFailed(f"{spec.id} has no source on the hub")
    spec.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return (
        _pull_gguf(hub, spec, source, download)
        if source.format == "gguf"
        else _pull_folder(hub, spec, source, download)
    )


def look(hub: Hub, file: RemoteFile, scratch: Path) -> Header:
    """Return the header of a remote GGUF file without downloading the rest of it.

    `scratch` is the path of a temporary file, which is removed at the end.

    Raises:
        DownloadFailed: the hub refuses it or cannot be reached.
        InvalidModelFile: it is not a GGUF file, or a damaged one.
    """
    try:
        for size in HEADER_BYTES:
            content = hub.read(file, size)
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


def _pull_gguf(hub: Hub, spec: ModelSpec, source: Source, download: Download) -> Found:
    assert source.file is not None
    file = hub.find(source.repo, source.file, source.revision)
    if file.kind != "sha256":
        raise DownloadFailed(f"{source.repo}/{source.file}: the hub names no sha256 of it")
    require_named(source, file)
    download.expect(file.bytes)
    arrived = spec.path.with_name(f"{spec.path.name}.arrived")
    try:
        fetch(hub, file, arrived, progress=download.progress, cancelled=download.cancelled)
        download.state = "checking"
        _require_architecture(spec, read_header(arrived))
        arrived.replace(spec.path)
        sync_directory(spec.path.parent)
    finally:
        arrived.unlink(missing_ok=True)
    return Found(file.revision, file.bytes, file.digest)


def _require_architecture(spec: ModelSpec, header: Header) -> None:
    wanted, found = spec.entry.architecture, header.architecture
    if wanted and wanted != found:
        raise DownloadFailed(f"{spec.id}: the file is of {found}, the catalogue says {wanted}")


def _pull_folder(hub: Hub, spec: ModelSpec, source: Source, download: Download) -> Found:
    """Download the files of a safetensors model and convert them."""
    names = hub.files(source.repo, source.revision)
    missing = set(FOLDER_NEEDS) - set(names)
    if missing:
        raise DownloadFailed(f"{source.repo} has no {min(missing)}; it cannot be converted")
    wanted = [*FOLDER_NEEDS, *(name for name in FOLDER_MAY_HAVE if name in names)]
    first = hub.find(source.repo, wanted[0], source.revision)
    # All files of one commit, even if another one is pushed in the meantime.
    files = [first, *(hub.find(source.repo, name, first.revision) for name in wanted[1:])]
    weights = files[1]
    require_named(source, weights)
    download.expect(sum(file.bytes for file in files))
    with _folder_of(spec, weights) as folder:
        done = 0
        for file in files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                report = partial(_report, download, done)
                fetch(hub, file, target, progress=report, cancelled=download.cancelled)
            done += file.bytes
            download.progress(done)
        download.state = "checking"
        arrived = folder / "converted.gguf"
        convert_folder(folder, arrived, name=spec.id)
        _require_architecture(spec, read_header(arrived))
        sync_file(arrived)
        arrived.replace(spec.path)
        sync_directory(spec.path.parent)
        shutil.rmtree(folder)
    return Found(first.revision, weights.bytes, weights.digest)


def _report(download: Download, before: int, have: int) -> None:
    download.progress(before + have)


@contextmanager
def _folder_of(spec: ModelSpec, weights: RemoteFile) -> Iterator[Path]:
    """Yield a folder for the parts. It stays after a failure: the next pull resumes from it."""
    folder = spec.path.with_name(f"{weights.revision[:12]}-{weights.digest[:12]}.parts")
    folder.mkdir(mode=0o700, exist_ok=True)
    yield folder
