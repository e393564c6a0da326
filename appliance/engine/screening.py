"""Screening: no foreign model file is computed in this process before another one has tried it.

Owns that process, its limits, and the records of what it found, kept beside the model files.
"""

import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from appliance.catalog.catalog import BUILTIN
from appliance.catalog.header_parser import read_header
from appliance.catalog.spec import ModelEntry, ModelSpec
from appliance.core.errors import LoadFailed
from appliance.engine.footprint import footprint
from appliance.engine.model_limits import room_for
from appliance.settings import EngineSettings, environment
from appliance.store.datadir import write_private

log = logging.getLogger("gigarouter.screening")

SECONDS = 60.0
"""Seconds that a trial may take, whatever the size of the file."""
BYTES_PER_S = 20_000_000
"""Bytes of the file for which a trial gets one more second."""
MEMORY_FACTOR = 2
"""How many times the model's expected memory a trial may take."""
MEMORY_BYTES = 4 << 30
"""Bytes of address space for the program itself, on top of that."""
VERSION = 1
"""Of the trial: a record that another version made does not count."""


Screen = Callable[[ModelSpec], None]
"""Raises `LoadFailed` for a file that is not to be used."""


def trusted(_: ModelSpec) -> None:
    """Let every file pass; for an engine that computes none of them."""


class TrialRecord(msgspec.Struct, frozen=True):
    """What a trial found; it holds for the file with this size and time of change."""

    version: int
    size: int
    changed_ns: int
    model: str
    """The settings of the model's entry that it was tried with."""
    reason: str | None
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Screening:
    """The records of one folder of models."""

    folder: Path

    def require(self, spec: ModelSpec) -> None:
        """Try a file that was not tried yet, and refuse one that failed its trial.

        Raises:
            LoadFailed: it failed; the message gives the reason.
            InvalidModelFile: it is no model file at all.
        """
        if spec.entry.file.startswith(BUILTIN):
            return
        record = self.known(spec)
        if record is None:
            reason, notes = tried(spec)
            stat = spec.path.stat()
            record = TrialRecord(
                VERSION, stat.st_size, stat.st_mtime_ns, _what(spec.entry), reason, notes
            )
            self._keep(spec, record)
            log.info("%s was tried: %s", spec.id, reason or "; ".join(notes) or "good")
        if record.reason is not None:
            raise LoadFailed(f"{spec.path.name} is not used: {record.reason}")

    def known(self, spec: ModelSpec) -> TrialRecord | None:
        """Return the record on a file as it is now, or None if there is none."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            path = self.path(spec)
            record = _read(path, path.stat().st_mtime_ns)
            stat = spec.path.stat()
            now = (VERSION, stat.st_size, stat.st_mtime_ns, _what(spec.entry))
            if (record.version, record.size, record.changed_ns, record.model) == now:
                return record
        return None

    def path(self, spec: ModelSpec) -> Path:
        """Return where the record on a model is kept."""
        return self.folder / f"{spec.path.name}.verdict.json"

    def _keep(self, spec: ModelSpec, record: TrialRecord) -> None:
        try:
            write_private(self.path(spec), msgspec.json.encode(record))
        except OSError as error:
            log.warning("the record on %s is not kept: %s", spec.id, error)


@lru_cache(maxsize=1024)
def _read(path: Path, _changed_ns: int) -> TrialRecord:
    """Return a record; it is needed at every call of a model."""
    return msgspec.json.decode(path.read_bytes(), type=TrialRecord)


def tried(spec: ModelSpec, *, seconds: float = SECONDS) -> tuple[str | None, list[str]]:
    """Try a file in a process of its own; return the reason not to use it, if any, and notes.

    Raises:
        InvalidModelFile: its header says already that it is no model file.
    """
    header = read_header(spec.path)
    room = room_for(header, EngineSettings())
    taken = footprint(header, pooling=spec.entry.pooling, room=room, workers=1)
    size = MEMORY_FACTOR * taken + MEMORY_BYTES
    request = msgspec.json.encode(
        {"entry": spec.entry, "path": str(spec.path), "memory_bytes": size}
    )
    limit_s = seconds + header.file_size / BYTES_PER_S
    try:
        end = subprocess.run(
            [sys.executable, "-P", "-m", "appliance.engine.preflight"],
            input=request,
            capture_output=True,
            timeout=limit_s,
            check=False,
            env=environment(),
        )
    except subprocess.TimeoutExpired as error:
        return f"{_step(error.stdout)} took longer than {limit_s:.0f} s", []
    *_, last = [b"", *end.stdout.splitlines()]
    with contextlib.suppress(msgspec.MsgspecError):
        found = msgspec.json.decode(last, type=_Found)
        return found.reason, found.notes
    if end.returncode < 0:
        name = signal.Signals(-end.returncode).name
        return f"llama.cpp crashed at {_step(end.stdout)} ({name})", []
    complaint = end.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return f"{_step(end.stdout)} failed: {''.join(complaint)[:300]}", []


class _Found(msgspec.Struct):
    reason: str | None = None
    notes: list[str] = []


def _step(output: bytes | None) -> str:
    lines = (output or b"").decode("utf-8", "replace").splitlines()
    return lines[-1] if lines else "starting"


def _what(entry: ModelEntry) -> str:
    return (
        f"{entry.pooling}|{entry.scores}|{entry.segments}|{entry.template}|{entry.max_input_tokens}"
    )
