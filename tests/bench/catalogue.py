"""Catalogue: every entry that ships is pulled, tried, loaded and called, with files as large as its
own.

    python -m tests.bench.catalogue [--only ID]... [--out FILE] [--minutes 15] [--folder DIR]

The files have the published shapes (`tests/shapes.py`) and drawn weights; a hub stands in. One
entry at a time, each with a server of its own, whose files are gone before the next. Prints for
each: size on the disk, memory as estimated and as measured, seconds of trial and load, tokens a
second in a short call and in one of the promised length, and whether it serves here, or why not.
With --out, rows are kept in FILE as they come, and a walk that was cut off goes on from there.
"""

import argparse
import mmap
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import httpx2
import msgspec

from appliance.catalog.catalog import load, shipped_path
from appliance.catalog.header_parser import read_header
from appliance.catalog.spec import ModelSpec
from appliance.engine.footprint import footprint
from appliance.engine.model_limits import room_for
from appliance.settings import EngineSettings
from tests import shapes
from tests.hub import COMMIT, StandIn, standing_in
from tests.server import Server
from tests.shapes import SHAPES

SHORT = "the cat sat on the mat"
LOOK_AGAIN_S = 0.05
SPARE_BYTES = 1 << 30
"""Free memory and disk that a walk leaves to others."""
ENDED = {"done", "failed", "cancelled"}


class Row(msgspec.Struct):
    """What was found of one entry; what was not reached is None."""

    id: str
    why_not: str | None = None
    """Why it does not serve here; None: it does."""
    disk: int | None = None
    estimated: int | None = None
    measured: int | None = None
    """Bytes that the server's memory grew by, from before the load until after the calls."""
    pull_s: float | None = None
    trial_s: float | None = None
    load_s: float | None = None
    short: float | None = None
    """Tokens a second."""
    long: float | None = None
    long_tokens: int | None = None


class Stopped(Exception):
    """An entry does not serve here; the message says why."""


@dataclass
class Deadline:
    """When an entry has taken too long, and what it is at."""

    until: float
    step: str = "starting"

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            Stopped: there are none.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise Stopped(f"{self.step} takes longer than the time for an entry")
        return left


def entries() -> list[ModelSpec]:
    """Return every entry that ships."""
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(nowhere)
        return list(load(shipped_path(), folder / "models.toml", folder))


def walk(
    spec: ModelSpec, folder: Path, *, seconds: float, shape: shapes.Shape | None = None
) -> Row:
    """Return what was found of one entry; `folder` is empty, and is full afterwards."""
    row, deadline = Row(spec.id), Deadline(time.monotonic() + seconds)
    shape = shape or SHAPES.get(spec.id)
    server = Server(folder / "data")
    server.data_dir.mkdir(mode=0o700)
    try:
        with standing_in() as (hub, endpoint):
            environment = {"GIGAROUTER_HUB_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf")}
            if shape is not None:
                _require_disk(shape, folder)
                deadline.step = "writing its file"
                with _published(spec, shape, hub, folder, server.data_dir) as file:
                    _require_memory(row, spec, file)
                    server.start(env=environment)
                    _pull(server, spec, row, deadline)
            else:
                server.start(env=environment)
                row.disk = spec.path.stat().st_size
                row.estimated = _estimate(spec, spec.path)
            _load_and_call(server, spec, row, deadline)
    except Stopped as stop:
        row.why_not = str(stop)
    except (httpx2.HTTPError, AssertionError) as error:
        row.why_not = f"{deadline.step}: {str(error).splitlines()[0][:200] or type(error).__name__}"
    finally:
        server.close()
    return row


@contextmanager
def _published(
    spec: ModelSpec, shape: shapes.Shape, hub: StandIn, folder: Path, data_dir: Path
) -> Iterator[Path | None]:
    """Have the hub offer an entry's file, and an entry that names what the hub has.

    Yields the GGUF file, or None where it will be converted.
    """
    source = spec.entry.source
    assert source is not None
    if source.format == "safetensors":
        for path in shapes.write_folder(folder / "published", shape).iterdir():
            large = path.suffix == ".safetensors"
            hub.put(source.repo, path.name, path.read_bytes(), large=large)
        own = hub.digest(source.repo, "model.safetensors")
        size = len(hub.files[source.repo, "model.safetensors"])
        _write_entry(data_dir, spec, own, size, of_file=False)
        yield None
        return
    assert source.file is not None
    path = shapes.write(folder / "published.gguf", shape)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        hub.put(source.repo, source.file, content)
        digest = hub.digest(source.repo, source.file)
        _write_entry(data_dir, spec, digest, len(content), of_file=True)
        try:
            yield path
        finally:
            hub.remove(source.repo, source.file)
    path.unlink()


def _write_entry(data_dir: Path, spec: ModelSpec, digest: str, size: int, *, of_file: bool) -> None:
    """Lay over the entry what the file at the hub is."""
    lines = [
        "schema = 1",
        "[[model]]",
        f'id = "{spec.id}"',
        f"max_input_tokens = {spec.entry.max_input_tokens}",
        f'source = {{ revision = "{COMMIT}", bytes = {size}, sha256 = "{digest}" }}',
    ]
    if spec.entry.dimensions is not None:
        lines.append(f"dimensions = {spec.entry.dimensions}")
    if of_file:
        lines.append(f'sha256 = "{digest}"')
    (data_dir / "models.toml").write_text("\n".join(lines) + "\n")


def _require_disk(shape: shapes.Shape, folder: Path) -> None:
    needed = int(2.1 * shapes.size_of(shape)) + SPARE_BYTES
    found = shutil.disk_usage(folder).free
    if found < needed:
        raise Stopped(f"needs {_gb(needed)} of disk for the walk, {_gb(found)} are free")


def _require_memory(row: Row, spec: ModelSpec, file: Path | None) -> None:
    if file is None:
        return
    row.disk = file.stat().st_size
    row.estimated = _estimate(spec, file)
    # It is tried in a process of its own before it is loaded: not at the same time.
    found = memory_free()
    if found < row.estimated + SPARE_BYTES:
        raise Stopped(f"needs {_gb(row.estimated)} of memory, {_gb(found)} are free")


def _estimate(spec: ModelSpec, file: Path) -> int:
    header = read_header(file)
    room = room_for(header, EngineSettings())
    return footprint(header, pooling=spec.entry.pooling, room=room)


def memory_free() -> int:
    """Return the bytes of memory that programs could take now."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _pull(server: Server, spec: ModelSpec, row: Row, deadline: Deadline) -> None:
    """Pull an entry, and note how long its trial took."""
    since: dict[str, float] = {}
    with server.admin() as admin:
        view = _ok(admin.post("/downloads", json={"id": spec.id}))
        while view["state"] not in ENDED:
            deadline.step = str(view["state"])
            since.setdefault(deadline.step, time.monotonic())
            deadline.left()
            time.sleep(LOOK_AGAIN_S)
            view = _ok(admin.get(f"/downloads/{view['id']}"))
    now = time.monotonic()
    if view["state"] != "done":
        raise Stopped(f"{deadline.step}: {view['error']}")
    tried = since.get("trying", now)
    row.pull_s = tried - min(since.values(), default=now)
    row.trial_s = now - tried
    [file] = [path for path in (server.data_dir / "models").iterdir() if path.suffix == ".gguf"]
    row.disk = file.stat().st_size
    row.estimated = _estimate(spec, file)


def _load_and_call(server: Server, spec: ModelSpec, row: Row, deadline: Deadline) -> None:
    assert server.process is not None
    before = resident(server.process.pid)
    deadline.step = "loading"
    with server.admin() as admin:
        admin.timeout = deadline.left()
        began = time.monotonic()
        _ok(admin.post("/engines/load", json={"id": spec.id}))
        while not _is_loaded(admin, spec.id):
            deadline.left()
            time.sleep(LOOK_AGAIN_S)
        row.load_s = time.monotonic() - began
    with server.client() as client:
        row.short, _ = _called(client, spec, SHORT, deadline, "a short call")
        promised = spec.entry.max_input_tokens
        step = f"a call of {promised:,} tokens"
        row.long, row.long_tokens = _called(client, spec, "a " * promised, deadline, step)
    row.measured = resident(server.process.pid) - before
    if row.long_tokens < promised:
        raise Stopped(f"takes {row.long_tokens:,} tokens, and promises {promised:,}")


def _is_loaded(admin: httpx2.Client, name: str) -> bool:
    """Return whether a model can compute.

    Raises:
        Stopped: it could not be loaded.
    """
    view = _ok(admin.get(f"/models/{name}"))
    if view.get("reason"):
        raise Stopped(str(view["reason"]))
    return bool(view["loaded"])


def _called(
    client: httpx2.Client, spec: ModelSpec, text: str, deadline: Deadline, step: str
) -> tuple[float, int]:
    """Call a model; return tokens a second, and how many they were."""
    deadline.step = step
    client.timeout = deadline.left()
    path, body = (
        ("/v1/embeddings", {"input": text})
        if spec.task == "embeddings"
        else ("/v1/rerank", {"query": "the cat", "documents": [text]})
    )
    began = time.monotonic()
    try:
        answer = client.post(path, json={"model": spec.id, **body}, headers={"prefer": "wait=60"})
    except httpx2.TimeoutException:
        raise Stopped(f"{step} takes longer than the time for an entry") from None
    found = _ok(answer)
    tokens = int(found["usage"]["total_tokens"])
    return tokens / (time.monotonic() - began), tokens


def _ok(answer: httpx2.Response) -> dict:
    found = answer.json()
    if answer.is_error:
        raise Stopped(f"{answer.status_code} {found['error']['message']}")
    return found


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


# -- the table -------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Return what a person wants to see."""
    head = (
        "model",
        "disk",
        "estimate",
        "measured",
        "trial s",
        "load s",
        "short t/s",
        "long t/s",
        "serves here",
    )
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(line[1:-1], widths[1:], strict=True)),
                line[-1],
            ]
        )
        for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.id,
        *("-" if size is None else _gb(size) for size in (row.disk, row.estimated, row.measured)),
        *("-" if number is None else f"{number:.1f}" for number in (row.trial_s, row.load_s)),
        *("-" if rate is None else f"{rate:,.0f}" for rate in (row.short, row.long)),
        "yes" if row.why_not is None else f"no: {row.why_not}",
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def read(path: Path) -> list[Row]:
    """Return the rows that an earlier walk kept."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Row) for line in lines if line]


def chosen(only: Sequence[str], known: Sequence[Row]) -> list[ModelSpec]:
    """Return the entries to walk: those named, else those of which nothing is known.

    Raises:
        ValueError: a name is no entry's; lists all.
    """
    everything = entries()
    unknown = set(only) - {spec.id for spec in everything}
    if unknown:
        ids = ", ".join(spec.id for spec in everything)
        raise ValueError(f"{min(unknown)} is no entry of the catalogue: {ids}")
    done = {row.id for row in known}
    return [spec for spec in everything if (spec.id in only if only else spec.id not in done)]


def main(arguments: Sequence[str] | None = None, *, one: Callable[..., Row] = walk) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="ID")
    parser.add_argument("--out", type=Path, help="keep rows here, and go on from them")
    parser.add_argument("--minutes", type=float, default=15, help="for each entry")
    parser.add_argument("--folder", type=Path, help="where files are written; else a temporary one")
    asked = parser.parse_args(arguments)
    rows = read(asked.out) if asked.out else []
    try:
        specs = chosen(asked.only, rows)
    except ValueError as error:
        click.echo(str(error), err=True)
        return 2
    for spec in specs:
        with tempfile.TemporaryDirectory(prefix="gigarouter-walk-", dir=asked.folder) as folder:
            row = one(spec, Path(folder), seconds=asked.minutes * 60)
        rows = [*(each for each in rows if each.id != row.id), row]
        click.echo(table([row]).splitlines()[1], err=True)
        if asked.out:
            asked.out.write_bytes(b"\n".join(msgspec.json.encode(each) for each in rows) + b"\n")
    click.echo(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
