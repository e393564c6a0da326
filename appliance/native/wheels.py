"""Wheels: distributions of this environment, written back into the wheels that they came from.

Owns the way back: what is installed now can be put there again without a network. The format is
that of the Python Packaging User Guide's "Binary distribution format".
"""

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from appliance.native.pip import BuildFailed

INSTALLERS_OWN = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")
"""Files beside the metadata that an installer writes."""


def installed(name: str) -> Distribution | None:
    """Return a distribution of this environment, None if it is not there."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def pack(found: Distribution, folder: Path) -> Path:
    """Write an installed distribution as a wheel into a folder; return its path.

    Raises:
        BuildFailed: its files are not known, or not all of them are there.
    """
    info = f"{found.name.replace('-', '_')}-{found.version}"
    tags = [
        line.partition(": ")[2]
        for line in (found.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag: ")
    ]
    if not found.files or not tags:
        raise BuildFailed(f"{found.name} {found.version} was not installed from a wheel")
    files = {}
    for file in found.files:
        if file.suffix == ".pyc" or file.name in INSTALLERS_OWN or file.parts[0] == "..":
            continue
        try:
            files[str(file)] = file.read_binary()
        except OSError as error:
            raise BuildFailed(f"{found.name}: {file}: {error.strerror}") from error
    return _write(folder / f"{info}-{_compressed(tags)}.whl", info, files)


def write(
    folder: Path,
    name: str,
    version: str,
    tag: str,
    *,
    summary: str,
    needs: Sequence[str],
    files: Mapping[str, bytes],
) -> Path:
    """Write a new distribution's wheel into a folder; return its path."""
    info = f"{name.replace('-', '_')}-{version}"
    headers = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    headers += [f"Summary: {summary}", *(f"Requires-Dist: {need}" for need in needs)]
    wheel = ["Wheel-Version: 1.0", "Generator: gigarouter", "Root-Is-Purelib: false", f"Tag: {tag}"]
    described = {
        f"{info}.dist-info/METADATA": "\n".join([*headers, ""]).encode(),
        f"{info}.dist-info/WHEEL": "\n".join([*wheel, ""]).encode(),
    }
    return _write(folder / f"{info}-{tag}.whl", info, {**files, **described})


def _write(path: Path, info: str, files: Mapping[str, bytes]) -> Path:
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(file, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{file},sha256={digest.decode()},{len(content)}\n")
        place = f"{info}.dist-info/RECORD"
        archive.writestr(place, "".join([*record, f"{place},,\n"]))
    return path


def requirements(wheel: Path) -> list[str]:
    """Return what a wheel says that it needs."""
    with zipfile.ZipFile(wheel) as archive:
        [place] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        headers = message_from_bytes(archive.read(place))
    return [str(value) for value in headers.get_all("Requires-Dist", [])]


def _compressed(tags: list[str]) -> str:
    """Return several tags as a file's name has them: each of the three parts joined by dots."""
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)
