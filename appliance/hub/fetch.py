"""Fetch: download one file from the hub, completely and verified, or not at all.

Resumes after a broken connection and after an earlier run, hashes what is on the disk, and only
then gives it its final name. huggingface_hub's own download does neither over HTTP, so only its
lower layers are used (`remote.py`).
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from appliance.core.errors import DownloadCancelled, DownloadFailed
from appliance.hub.part import Part, Watch, on_disk, opened
from appliance.hub.remote import Hub, Interrupted, RemoteFile
from appliance.store.datadir import sync_directory
from appliance.store.digests import Digests, hash_into

KEPT_FREE_BYTES = 256 * 1024 * 1024
"""Free disk space that a download leaves for the database and other programs."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses between successive attempts that got next to nothing; one that got more starts again at
the first pause."""
PAUSE_MAX_S = 60.0
"""Longest pause, even if the hub's Retry-After asks for a longer one."""
STALLED_BYTES = 16 * 1024
"""What an attempt must get at least; and a connection, in each `STALLED_S`."""
STALLED_S = 60.0
COPY_BYTES = 1 << 20


def fetch(hub: Hub, file: RemoteFile, target: Path, *, watch: Watch, digests: Digests) -> None:
    """Download a file to `target`; bytes from an earlier attempt are not downloaded again.

    Raises:
        DownloadFailed: it cannot be downloaded, its digest is wrong, or the disk refuses.
        DownloadCancelled: it was cancelled; the bytes downloaded so far stay on the disk.
    """
    part = part_of(target, file)
    complete(hub, file, part, watch=watch, digests=digests)
    with on_disk(target):
        part.replace(target)
        sync_directory(target.parent)


def complete(
    hub: Hub,
    file: RemoteFile,
    path: Path,
    *,
    watch: Watch,
    digests: Digests,
    twins: Sequence[Path] = (),
) -> None:
    """Download what is missing of the part at `path`, and hash the file that it is then.

    `twins` are files of this machine with the right digest, of which one is linked, or copied where
    that cannot be.

    Raises:
        DownloadFailed: it cannot be downloaded, its digest is wrong, or the disk refuses.
        DownloadCancelled: it was cancelled; the bytes downloaded so far stay on the disk.
    """
    if _size(path) == 0:
        _link(path, twins)
    _require_room(path, file)
    if _size(path) == 0:
        for source in [*twins, *filter(None, [hub.cached(file)])]:
            _copy(source, path, file, watch)
            if _digest(path, file, watch, digests) == file.digest:
                return
            path.unlink()
    with opened(path, file, watch) as part:
        _fetch_rest(hub, part)
        part.sync()
    found = _digest(path, file, watch, digests)
    if found != file.digest:
        with on_disk(path):
            path.unlink()
        raise DownloadFailed(
            f"{file.repo}/{file.path}: its {file.kind} is {found}, and should be {file.digest}; "
            "what was fetched is removed, pull again"
        )


def part_of(target: Path, file: RemoteFile) -> Path:
    """Return the path of the partial file. It is named by the digest, so parts never mix."""
    return target.with_name(f"{file.digest}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _link(path: Path, twins: Sequence[Path]) -> None:
    """Link the first of the files that can be linked."""
    for twin in twins:
        try:
            path.unlink(missing_ok=True)
            os.link(twin, path)
        except OSError:  # another disk, or one without links
            continue
        return


def _require_room(path: Path, file: RemoteFile) -> None:
    missing = file.bytes - min(_size(path), file.bytes)
    with on_disk(path):
        free = shutil.disk_usage(path.parent).free
    if missing and free < missing + KEPT_FREE_BYTES:
        raise DownloadFailed(
            f"{path.parent} has {free:,} bytes free, and {file.path} needs "
            f"{missing + KEPT_FREE_BYTES:,} ({KEPT_FREE_BYTES:,} of them stay free); free some and "
            "pull again"
        )


def _copy(source: Path, path: Path, file: RemoteFile, watch: Watch) -> None:
    with on_disk(source), opened(path, file, watch) as part, source.open("rb") as stream:
        while not part.is_complete() and (chunk := stream.read(COPY_BYTES)):
            part.add(chunk)
        part.sync()


def _digest(path: Path, file: RemoteFile, watch: Watch, digests: Digests) -> str:
    """Return the digest of what is on the disk, of the kind that the hub names."""

    def checked(read: int) -> None:
        watch.require_wanted()
        watch.checking(read)

    checked(0)
    with on_disk(path):
        if file.kind == "sha256":
            found = digests.sha256(path, checked)
        else:
            # Of a git blob, which includes its size (git-scm.com/book, Git Objects).
            size = path.stat().st_size
            blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
            found = hash_into(blob, path, checked)
    watch.checking(file.bytes)
    return found


def _fetch_rest(hub: Hub, part: Part) -> None:
    tries = 0
    while not part.is_complete():
        before = part.have
        reason, wait_s = _fetch_some(hub, part)
        if part.is_complete():
            return
        tries = 1 if part.have - before >= STALLED_BYTES else tries + 1
        if tries > len(PAUSES_S):
            raise DownloadFailed(f"{reason}; gave up after {tries} tries. Pull again to go on")
        if part.watch.cancelled.wait(max(PAUSES_S[tries - 1], min(wait_s, PAUSE_MAX_S))):
            raise DownloadCancelled


def _fetch_some(hub: Hub, part: Part) -> tuple[str, float]:
    """Download until the connection ends; return the reason, and the hub's Retry-After in s."""
    part.cut_to_good()
    part.watch.require_wanted()
    clock = part.watch.clock
    try:
        with hub.open(part.file, part.have) as body:
            if body.offset != part.have:
                part.begin_again()
            since_ns, before = clock.monotonic_ns(), part.have
            for chunk in body.chunks:
                part.add(chunk)
                if part.is_complete() or clock.monotonic_ns() - since_ns < STALLED_S * 1e9:
                    continue
                if part.have - before < STALLED_BYTES:
                    return f"{part.file.path}: the hub sends next to nothing", 0.0
                since_ns, before = clock.monotonic_ns(), part.have
    except Interrupted as error:
        return str(error), error.wait_s
    return "the connection ended early", 0.0
