"""Trial record: what the trial of a model file found, and where that is kept.

Owns the files of `models/trials/`, one for each content: a record follows its file through a
rename, and a file that was replaced has none. It counts for one build of the engine on one kind of
processor.
"""

import logging
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance import machine
from appliance.catalog.spec import ModelEntry, ModelSpec
from appliance.engine.llama.installed import installed_build
from appliance.store.datadir import write_private
from appliance.store.digests import Digests

log = logging.getLogger("gigarouter.trial")

VERSION = 2
"""Of the trial: a record that another version made does not count."""
SHORT_TOKENS = 64
"""What each file that passes its trial has computed, rounded up."""
KEPT_MAX = 1000
"""Files of records; the ones written first go first."""


class Length(msgspec.Struct, frozen=True):
    """One sequence that was computed."""

    tokens: int
    seconds: float
    peak_bytes: int
    """The most memory that the process had taken by then."""


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial found of a file."""

    version: int = VERSION
    build: str
    reason: str | None = None
    """Why the file must not be used; None: it may be."""
    notes: list[str] = []
    """What an operator should know of a file that may be used."""
    stderr: str = ""
    """The end of what the trial wrote to standard error, if the file is not used."""
    lengths: list[Length] = []
    """Long sequences that were tried on demand."""
    crashed_tokens: int | None = None
    """Sequences of so many tokens crashed the engine, shorter ones did not."""
    proven_tokens: int = SHORT_TOKENS
    """Sequences of up to so many tokens were computed on this machine."""


class TrialRecords:
    """The records of one folder; any thread may ask."""

    def __init__(self, folder: Path, digests: Digests) -> None:
        """Prepare; records of an older kind, which lie beside the models, are removed."""
        self._folder = folder
        self._digests = digests
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, TrialRecord]] = {}
        """By digest, then by what of the entry the trial depends on."""
        for old in folder.parent.glob("*.verdict.json"):
            with suppress(OSError):
                old.unlink()

    def __repr__(self) -> str:
        """Say where they are."""
        return f"<TrialRecords [{self._folder}]>"

    def find(self, spec: ModelSpec) -> TrialRecord | None:
        """Return the record on a file as it is now; None: there is none, or it is not hashed yet.

        Reads no model file: it is asked at every call of a model.
        """
        try:
            digest = self._digests.known(spec.path)
        except OSError:
            return None
        record = None if digest is None else self._of(digest).get(_depends_on(spec.entry))
        is_of_now = record is not None and (record.version, record.build) == (VERSION, engine())
        return record if is_of_now else None

    def keep(self, spec: ModelSpec, digest: str, record: TrialRecord) -> None:
        """Keep the record on a content; on a disk that is full, until the process ends."""
        with self._lock:
            found = {**self._of(digest), _depends_on(spec.entry): record}
            self._known[digest] = found
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_private(self._path(digest), msgspec.json.encode(found))
                self._bound()
            except OSError as error:
                log.warning("the record on %s is not kept: %s", spec.id, error)

    def _of(self, digest: str) -> dict[str, TrialRecord]:
        known = self._known.get(digest)
        if known is None:
            known = {}
            with suppress(OSError, msgspec.MsgspecError):
                known = msgspec.json.decode(
                    self._path(digest).read_bytes(), type=dict[str, TrialRecord]
                )
            if len(self._known) >= KEPT_MAX:
                self._known.clear()
            self._known[digest] = known
        return known

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"

    def _bound(self) -> None:
        files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for old in files[:-KEPT_MAX]:
            old.unlink(missing_ok=True)


def engine() -> str:
    """Return what a record is about besides the file: the engine's build and the processor."""
    return f"{installed_build()} | {machine.processor()}"


def _depends_on(entry: ModelEntry) -> str:
    return (
        f"{entry.pooling}|{entry.scores}|{entry.segments}|{entry.template}|{entry.max_input_tokens}"
    )
