"""TuningChoice: how a model is spread over the cores: measured, remembered, or set by the operator.

Owns the order of the three: what the operator set wins, then what was measured here before, and a
model without either is measured when it is loaded.
"""

import logging
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

    def choose(self, spec: ModelSpec, weights: Weights) -> Tuning:
        """Return the tuning of a loaded model; calibrates the first time, which takes seconds.

        Raises:
            LoadFailed: not even one backend could be opened.
            InferenceFailed: the model cannot compute.
        """
        calibrates = self._settings.calibrate
        found = self._calibrated(spec, weights) if calibrates else default_tuning(self._cores)
        return overridden(found, self._settings, cores=self._cores)

    def expected(self, spec: ModelSpec) -> Tuning:
        """Return the tuning that a model will have, as far as is known before it is loaded."""
        known = None if self._folder is None else read(tuning_path(self._folder, spec))
        usual = known or default_tuning(self._cores)
        return overridden(usual, self._settings, cores=self._cores)

    def _calibrated(self, spec: ModelSpec, weights: Weights) -> Tuning:
        from appliance.engine.llama.library import build  # noqa: PLC0415 - loads native code

        if self._folder is None:
            return calibrate(weights, cores=self._cores, clock=self._clock)
        path = tuning_path(self._folder, spec)
        found_for = fingerprint(
            spec.path, pooling=spec.entry.pooling, cores=self._cores, library=build()
        )
        tuning = recall(path, found_for)
        if tuning is None:
            tuning = calibrate(weights, cores=self._cores, clock=self._clock)
            if tuning.origin == "calibrated":
                _remember(path, tuning, found_for)
        return tuning


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
