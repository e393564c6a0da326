"""Crashes: which model files the server died over, and which are set aside for it.

Owns the list, on the disk, of the last deaths by a fault of native code, and the rule: a file that
was loaded or computed at two of them within ten minutes is set aside, until it is tried again.
Files that come with the program are not: whatever kills those would kill any.
"""

import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance.catalog.catalog import BUILTIN
from appliance.catalog.spec import ModelSpec
from appliance.engine.crash_marker import Mark
from appliance.store.datadir import write_private

DEATHS = 2
WITHIN_US = 600 * 1_000_000
KEPT = 100
"""Deaths that are remembered, the latest ones."""


class Crash(msgspec.Struct, frozen=True):
    """One death of a server over a model."""

    at_us: int
    mark: Mark


class Crashes:
    """The deaths of servers over one data directory; safe from every thread."""

    def __init__(self, path: Path) -> None:
        """Read what is known."""
        self._path = path
        self._lock = threading.Lock()
        self._all: list[Crash] = []
        with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            self._all = msgspec.json.decode(path.read_bytes(), type=list[Crash])

    def __repr__(self) -> str:
        """Count them."""
        return f"<Crashes [{len(self._all)}]>"

    def note(self, marks: tuple[Mark, ...], at_us: int) -> None:
        """Remember that a server died over these, one death for each model.

        Raises:
            OSError: they cannot be kept.
        """
        by_model = {mark.model: mark for mark in marks}
        with self._lock:
            self._all = [*self._all, *(Crash(at_us, mark) for mark in by_model.values())][-KEPT:]
            write_private(self._path, msgspec.json.encode(self._all))

    def refusal(self, spec: ModelSpec) -> str | None:
        """Return why a model is set aside, or None."""
        if not self._all or spec.entry.file.startswith(BUILTIN):
            return None
        times = [crash.at_us for crash in self._all if crash.mark.model == spec.id]
        for first, last in zip(times, times[DEATHS - 1 :], strict=False):
            if last - first <= WITHIN_US:
                return (
                    f"the server crashed {DEATHS} times within ten minutes while it computed "
                    f"with it; `gigarouter models try {spec.id}` brings it back"
                )
        return None

    def forget(self, model: str) -> None:
        """Let a model that passed its trial again be used."""
        with self._lock:
            kept = [crash for crash in self._all if crash.mark.model != model]
            if len(kept) < len(self._all):
                self._all = kept
                with suppress(OSError):
                    write_private(self._path, msgspec.json.encode(kept))
