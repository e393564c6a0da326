"""TuningChoice: how a model is spread over the cores: measured, remembered, or set by the operator.

Owns the order of the three: what the operator set wins, then what was measured here before. A model
without either has the usual tuning until somebody has it measured.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.engine.backend import Weights
from appliance.engine.calibration import calibrate
from appliance.engine.tuning import (
    Tuning,
    default_tuning,
    fingerprint,
    read,
    recall,
    remember,
    tuning_path,
)
from appliance.settings import EngineSettings

log = logging.getLogger("gigarouter.loader")

MEASURED_BYTES_MAX = 1_000_000_000
"""Larger files have the usual tuning: one batch of theirs may take longer than a caller waits."""


class TuningChoice:
    """Chooses the tuning of each model."""

    def __init__(
        self, settings: EngineSettings, *, cores: int, folder: Path | None, clock: Clock
    ) -> None:
        """Prepare; calibrations are remembered in `folder` (None: they are not)."""
        self._settings = settings
        self._cores = cores
        self._folder = folder
        self._clock = clock

    def __repr__(self) -> str:
        """Say where calibrations are remembered."""
        return f"<TuningChoice [{self._cores} cores | {self._folder}]>"

    def choose(self, spec: ModelSpec) -> Tuning:
        """Return the tuning of a model that is being loaded."""
        found = self._remembered(spec) if self._settings.calibrate else None
        return overridden(found or default_tuning(self._cores), self._settings, cores=self._cores)

    def is_measurable(self, spec: ModelSpec) -> bool:
        """Say whether a model's tuning is to be measured: it never was, and it would not be long.

        Reads the file's facts.
        """
        if not self._settings.calibrate or self._remembered(spec) is not None:
            return False
        return spec.path.stat().st_size <= MEASURED_BYTES_MAX

    def measure(
        self, spec: ModelSpec, weights: Weights, is_wanted: Callable[[], bool] = lambda: True
    ) -> Tuning | None:
        """Measure a loaded model, which takes seconds of all cores, and remember what was found.

        None: nothing could be decided (see `calibrate`).

        Raises:
            LoadFailed: not even one backend could be opened.
            InferenceFailed: the model cannot compute.
        """
        found = calibrate(weights, cores=self._cores, clock=self._clock, is_wanted=is_wanted)
        if found is None:
            return None
        if self._folder is not None and found.origin == "calibrated":
            _remember(tuning_path(self._folder, spec), found, self._found_for(spec))
        return overridden(found, self._settings, cores=self._cores)

    def expected(self, spec: ModelSpec) -> Tuning:
        """Return the tuning that a model will have, as far as is known before it is loaded."""
        known = None if self._folder is None else read(tuning_path(self._folder, spec))
        usual = known or default_tuning(self._cores)
        return overridden(usual, self._settings, cores=self._cores)

    def _remembered(self, spec: ModelSpec) -> Tuning | None:
        if self._folder is None:
            return None
        return recall(tuning_path(self._folder, spec), self._found_for(spec))

    def _found_for(self, spec: ModelSpec) -> str:
        from appliance.engine.llama.library import build  # noqa: PLC0415 - loads native code

        return fingerprint(
            spec.path, pooling=spec.entry.pooling, cores=self._cores, library=build()
        )


def overridden(tuning: Tuning, settings: EngineSettings, *, cores: int) -> Tuning:
    """Return the tuning with what the operator chose in its place."""
    workers = settings.workers or tuning.workers
    flash = {"auto": tuning.flash_attention, "on": True, "off": False}[settings.flash_attention]
    chosen = msgspec.structs.replace(
        tuning,
        workers=workers,
        threads=max(1, cores // workers) if settings.workers else tuning.threads,
        max_batch_tokens=settings.max_batch_tokens or tuning.max_batch_tokens,
        flash_attention=flash,
    )
    return tuning if chosen == tuning else msgspec.structs.replace(chosen, origin="settings")


def _remember(path: Path, tuning: Tuning, found_for: str) -> None:
    try:
        remember(path, tuning, found_for)
    except OSError as error:
        log.warning("the calibration is not kept: %s", error)
