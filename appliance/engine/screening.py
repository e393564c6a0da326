"""Screening: no foreign model file is computed in this process before another one has tried it.

Owns which files need a trial, how many are tried at once, and the verdict on those that were.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.catalog.catalog import BUILTIN
from appliance.catalog.headers import header_of
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import LoadFailed, TrialUnfinished
from appliance.engine.backend import Weights
from appliance.engine.crash_marker import CrashMarker, Mark
from appliance.engine.crashes import Crashes
from appliance.engine.footprint import footprint
from appliance.engine.length_watch import LengthWatch, Marks, WatchedWeights
from appliance.engine.model_limits import room_for
from appliance.engine.trial import Trial
from appliance.engine.trial_record import SHORT_TOKENS, TrialRecord, TrialRecords, engine
from appliance.settings import EngineSettings
from appliance.store.datadir import DataDir
from appliance.store.digests import Digests

log = logging.getLogger("gigarouter.trial")

TRIALS_MAX = 2
"""Files that are tried at once."""
LOOK_AGAIN_S = 0.1
"""How often one that waits for a trial looks whether it is still wanted."""


Screen = Callable[[ModelSpec], None]
"""Raises `LoadFailed` for a file that is not to be used."""
Wanted = Callable[[], None]
"""Called while a trial is waited for; what it raises ends both."""
CancellableScreen = Callable[[ModelSpec, Wanted | None], None]
"""The same for one that waits for the trial; the default is to wait for as long as it takes."""


Watch = Callable[[ModelSpec, Weights], Weights]
"""Returns the weights of a file whose long sequences are watched."""


def trusted(_: ModelSpec, _wanted: Wanted | None = None) -> None:
    """Let every file pass; for an engine that computes none of them."""


def unwatched(_: ModelSpec, weights: Weights) -> Weights:
    """Return weights as they are; for a process that may die of them."""
    return weights


@dataclass(frozen=True, slots=True, eq=False)
class TrialRun:
    """A trial on its way; `done` holds its error if it has one."""

    trial: Trial
    done: "Future[None]"
    long: bool

    def cancel(self) -> None:
        """End it at once."""
        self.trial.cancel()
        self.done.cancel()


class Screening:
    """Tries files, at most `TRIALS_MAX` at once, and knows what was found; any thread may ask."""

    def __init__(
        self, folder: Path, digests: Digests, settings: EngineSettings | None = None
    ) -> None:
        """Prepare; records are kept in `folder`."""
        self._digests = digests
        self._settings = settings or EngineSettings()
        self._folder = folder
        self._records = TrialRecords(folder, digests)
        self._marks = Marks(folder)
        self.marker: CrashMarker | None = None
        """Where it is marked what native code computes now; only a server has one."""
        self.crashes = Crashes(folder / "crashes.json")
        """What servers died over."""
        self._watches: dict[str, LengthWatch] = {}
        """By digest, of the contents that were loaded."""
        self._lock = threading.Lock()
        self._runs: dict[tuple[Path, str], TrialRun] = {}
        self._threads = ThreadPoolExecutor(TRIALS_MAX, thread_name_prefix="trial")
        self._closed = False

    @classmethod
    def over(cls, directory: DataDir, digests: Digests, settings: EngineSettings) -> "Screening":
        """Return one that keeps its records in a data directory."""
        return cls(directory.models / "trials", digests, settings)

    def begin_marking(self) -> tuple[Mark, ...]:
        """Mark from now on what native code computes; return what the server before died over.

        Raises:
            OSError: the marks cannot be kept.
        """
        self.marker = CrashMarker(self._folder / "computing")
        return self.marker.left

    def __repr__(self) -> str:
        """Count what runs."""
        return f"<Screening [{len(self._runs)} trials]>"

    def known(self, spec: ModelSpec) -> TrialRecord | None:
        """Return the record on a file as it is now, or None; no model file is read for it."""
        return self._records.find(spec)

    def refusal(self, spec: ModelSpec) -> str | None:
        """Return why a file that was tried is not to be used, or None."""
        record = self.known(spec)
        failed = None if record is None else record.reason
        return failed or self.crashes.refusal(spec)

    def is_tried(self, spec: ModelSpec) -> bool:
        """Say whether a file needs no trial any more, or none at all."""
        return spec.entry.file.startswith(BUILTIN) or self.known(spec) is not None

    def running(self, spec: ModelSpec) -> TrialRun | None:
        """Return the trial of a file that waits or runs now."""
        return self._runs.get(_key(spec))

    def require(self, spec: ModelSpec, wanted: Wanted | None = None) -> None:
        """Return if a file may be used; one that was not tried yet is tried first, which waits.

        `wanted` is called meanwhile; an error that it raises cancels the trial and ends the wait.

        Raises:
            LoadFailed: it failed its trial; the message gives the reason.
            TrialUnfinished: its trial ended for no fault of the file.
            InvalidModelFile: it is no model file at all.
        """
        if not self.is_tried(spec):
            try:
                _wait(self.begin(spec), wanted)
            except CancelledError:
                raise TrialUnfinished(spec.path.name, "its trial was cancelled") from None
        self._require_passed(spec)

    def begin(self, spec: ModelSpec, *, fresh: bool = False, long: bool = False) -> TrialRun:
        """Begin a trial, or join the one that runs.

        `fresh` tries a file again that was tried already; `long` tries its longest sequences too.

        Raises:
            TrialUnfinished: this is closed.
        """
        with self._lock:
            if self._closed:
                raise TrialUnfinished(spec.path.name, "the server is stopping")
            running = self._runs.get(_key(spec))
            if running is not None and (running.long or not long):
                return running
            trial = Trial(spec)
            done = self._threads.submit(self._try, spec, trial, fresh or long, long)
            run = self._runs[_key(spec)] = TrialRun(trial, done, long)
        done.add_done_callback(lambda _: self._ended(spec, run))
        return run

    def watched(self, spec: ModelSpec, weights: Weights) -> Weights:
        """Return a tried file's weights; sequences longer than any before are watched."""
        record = self.known(spec)
        if record is None or spec.entry.file.startswith(BUILTIN):
            return weights
        digest = self._digests.sha256(spec.path)
        left = self._marks.left(digest)
        if left is not None:
            log.error("a process died over %s with a sequence of %d tokens", spec.id, left)
            record = msgspec.structs.replace(record, crashed_tokens=left)
            self._records.keep(spec, digest, record)
            self._marks.forget(digest)
        with self._lock:
            watch = self._watches.get(digest)
            if watch is None:
                watch = self._watches[digest] = LengthWatch(
                    digest,
                    self._marks,
                    proven=record.proven_tokens,
                    crashed=record.crashed_tokens,
                    on_proven=lambda tokens: self._proven(spec, digest, tokens),
                )
        return WatchedWeights(weights, watch)

    def stop_watching(self) -> None:
        """Leave no marks of long sequences from now on: the process is told to end."""
        self._marks.stop()

    def _proven(self, spec: ModelSpec, digest: str, tokens: int) -> None:
        record = self.known(spec)
        if record is not None and record.proven_tokens < tokens:
            record = msgspec.structs.replace(record, proven_tokens=tokens)
            self._records.keep(spec, digest, record)

    def close(self) -> None:
        """Cancel every trial and refuse new ones; return once their processes have ended."""
        with self._lock:
            self._closed = True
            runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        self._threads.shutdown()

    def _ended(self, spec: ModelSpec, run: TrialRun) -> None:
        with self._lock:
            if self._runs.get(_key(spec)) is run:
                del self._runs[_key(spec)]

    # -- on the trials' threads -----------------------------------------------------------------

    def _try(self, spec: ModelSpec, trial: Trial, fresh: bool, long: bool) -> None:  # noqa: FBT001 - an executor passes them on
        trial.require_wanted()
        trial.step = "reading the file"
        digest = self._hashed(spec, trial)
        header = header_of(spec.path)
        room = room_for(header, self._settings)
        trial.model_bytes = footprint(header, pooling=spec.entry.pooling, room=room)
        record = self.known(spec)
        if record is None or fresh:
            record = self._tried(spec, trial, long=long)
            if self._hashed(spec, trial) != digest:
                raise TrialUnfinished(spec.path.name, "the file changed meanwhile")
            self._records.keep(spec, digest, record)
            self._follow(digest, record)
            if record.reason is None:
                self.crashes.forget(spec.id)
            said = record.reason or "; ".join(record.notes) or "good"
            log.info("%s was tried: %s", spec.id, said)
        self._require_passed(spec)

    def _require_passed(self, spec: ModelSpec) -> None:
        reason = self.refusal(spec)
        if reason is not None:
            raise LoadFailed(f"{spec.path.name} is not used: {reason}")

    def _follow(self, digest: str, record: TrialRecord) -> None:
        """Let a model that is in memory go by a new record."""
        if record.crashed_tokens is None:
            self._marks.forget(digest)
        watch = self._watches.get(digest)
        if watch is not None:
            watch.crashed = record.crashed_tokens
            watch.proven = max(watch.proven, record.proven_tokens)

    def _hashed(self, spec: ModelSpec, trial: Trial) -> str:
        try:
            digest = self._digests.sha256(spec.path, trial.require_wanted)
        except OSError as error:
            raise TrialUnfinished(spec.path.name, f"it cannot be read ({error})") from None
        if spec.entry.sha256 not in (None, digest):
            raise LoadFailed(f"{spec.path.name} is not the file that the catalogue names (sha256).")
        return digest

    def _tried(self, spec: ModelSpec, trial: Trial, *, long: bool) -> TrialRecord:
        before = self.known(spec)
        log.info("%s is tried in a process of its own", spec.id)
        trial.run(long=long)
        assert trial.report is not None
        keeps = before is not None and not long
        longest = max((length.tokens for length in trial.lengths), default=0)
        return TrialRecord(
            build=engine(),
            reason=trial.report.reason,
            notes=trial.report.notes,
            stderr=trial.stderr if trial.report.reason or trial.crashed_tokens else "",
            lengths=before.lengths if before and keeps else trial.lengths,
            crashed_tokens=before.crashed_tokens if before and keeps else trial.crashed_tokens,
            proven_tokens=max(longest, before.proven_tokens if before else SHORT_TOKENS),
        )


def _wait(run: TrialRun, wanted: Wanted | None) -> None:
    """Wait for the end of a trial, and raise its error if it has one."""
    while wanted is not None and not run.done.done():
        wait([run.done], LOOK_AGAIN_S)
        try:
            wanted()
        except BaseException:
            run.cancel()
            raise
    run.done.result()


def _key(spec: ModelSpec) -> tuple[Path, str]:
    return spec.path, repr((spec.entry.pooling, spec.entry.segments, spec.entry.template))
