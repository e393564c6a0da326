"""Archive: what moves to another machine, in one file: books, settings, the catalogue's own part.

Owns the file's form: a zip whose `manifest.json` names its format, what wrote it, and each member
with its size and SHA-256. What is read is held to that before it is used: an archive that somebody
sent is a file from outside.
"""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from appliance.core.errors import StoreFailed
from appliance.store.datadir import sync_file

FORMAT = 1
MANIFEST = "manifest.json"
BOOKS, SETTINGS, CATALOGUE = "gigarouter.db", "config.toml", "models.toml"
MEMBERS = (BOOKS, SETTINGS, CATALOGUE)
TEXT_BYTES_MAX = 4_000_000
"""Of the manifest, the settings and the catalogue, each."""
BLOCK = 1 << 20


class Member(msgspec.Struct, frozen=True):
    """One file in the archive."""

    bytes: int
    sha256: str


class Model(msgspec.Struct, frozen=True):
    """A model whose file was on the machine, and does not travel."""

    id: str
    file: str
    can_be_pulled: bool


class Manifest(msgspec.Struct, frozen=True):
    """What an archive says of itself."""

    format: int
    version: str
    """Of the program that wrote it."""
    created: str
    members: dict[str, Member]
    models: list[Model]


def write(path: Path, files: Mapping[str, Path], about: Manifest) -> None:
    """Write an archive of files by their names in it, 0600 and durable; `about` has no members yet.

    Raises:
        OSError: a file cannot be read, or the archive not be written.
    """
    assert set(files) <= set(MEMBERS)
    members = {name: _measured(file) for name, file in files.items()}
    manifest = msgspec.structs.replace(about, members=members)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w+b") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        for name, file in files.items():
            made.write(file, name)
    sync_file(path)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Manifest, zipfile.ZipFile]]:
    """Open an archive and yield what it says of itself.

    Raises:
        StoreFailed: it is none, was changed, or is of a newer version.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(path, archive)
            _require_members(path, manifest, archive.infolist())
            yield manifest, archive
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise StoreFailed(f"{path} is no archive of `gigarouter export`: {error}.") from error


def unpack(path: Path, folder: Path) -> Manifest:
    """Write the members of an archive into a folder, each as its manifest says; return that.

    Raises:
        StoreFailed: a member is not what the manifest says.
        OSError: it cannot be read, or the folder cannot be written to.
    """
    with opened(path) as (manifest, archive):
        needed = sum(member.bytes for member in manifest.members.values())
        if (free := shutil.disk_usage(folder).free) < needed:
            raise StoreFailed(
                f"{path} needs {needed} bytes on the disk of {folder}, which has {free} left."
            )
        for name, member in manifest.members.items():
            with archive.open(name) as source, (folder / name).open("xb") as target:
                digest = _copied(source, target, member.bytes)
            if digest != member.sha256:
                raise StoreFailed(f"{path}: {name} is not what its manifest says; export it again.")
        return manifest


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    names = archive.namelist()
    if names.count(MANIFEST) != 1 or archive.getinfo(MANIFEST).file_size > TEXT_BYTES_MAX:
        raise StoreFailed(f"{path} is no archive of `gigarouter export`: it has no {MANIFEST}.")
    try:
        with archive.open(MANIFEST) as source:
            manifest = msgspec.json.decode(source.read(TEXT_BYTES_MAX), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreFailed(f"{path}: its {MANIFEST} cannot be read: {error}.") from error
    if manifest.format > FORMAT:
        raise StoreFailed(
            f"{path} was written by gigarouter {manifest.version}, whose archives are newer "
            f"(format {manifest.format}, and {FORMAT} is known here): install that version first."
        )
    return manifest


def _require_members(path: Path, manifest: Manifest, inside: Sequence[zipfile.ZipInfo]) -> None:
    sizes = {each.filename: each.file_size for each in inside if each.filename != MANIFEST}
    said = {name: member.bytes for name, member in manifest.members.items()}
    if sizes != said or len(inside) != len(sizes) + 1 or BOOKS not in said:
        raise StoreFailed(f"{path} has other files than its manifest says; export it again.")
    if unknown := sorted(set(said) - set(MEMBERS)):
        raise StoreFailed(f"{path} has files that are none of ours: {', '.join(unknown)}.")
    if any(said.get(name, 0) > TEXT_BYTES_MAX for name in (SETTINGS, CATALOGUE)):
        raise StoreFailed(f"{path} has settings of more than {TEXT_BYTES_MAX} bytes.")


def _copied(source: IO[bytes], target: IO[bytes], most: int) -> str:
    """Copy at most so many bytes and return their SHA-256."""
    digest, left = hashlib.sha256(), most
    while left and (block := source.read(min(BLOCK, left))):
        digest.update(block)
        target.write(block)
        left -= len(block)
    return digest.hexdigest()


def _measured(file: Path) -> Member:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return Member(file.stat().st_size, digest)
