"""Model status: whether a model can be served, is loaded, and how it is tuned.

A server's residency implements it; `OfflineStatus` is for a data directory without a server.
"""

from pathlib import Path
from typing import Protocol

from appliance.catalog.spec import ModelSpec
from appliance.engine.model_limits import served_tokens_max
from appliance.engine.screening import Screening
from appliance.engine.tuning import Tuning, read, tuning_path
from appliance.settings import EngineSettings


class ModelStatus(Protocol):
    """Whether models are here, loaded, and how they are spread over the machine."""

    def is_loaded(self, spec: ModelSpec) -> bool:
        """Say whether the model can compute now."""
        ...

    def reason(self, spec: ModelSpec) -> str | None:
        """Return why the model cannot be served, or None."""
        ...

    def tuning(self, spec: ModelSpec) -> Tuning | None:
        """Return how the model is computed, or None if it was never loaded."""
        ...

    def tokens_max(self, spec: ModelSpec) -> int:
        """Return the tokens of the longest sequence that the model takes here; reads its file."""
        ...


class OfflineStatus:
    """A data directory without a server."""

    def __init__(
        self, models: Path, settings: EngineSettings, screening: Screening | None = None
    ) -> None:
        self._models = models
        self._settings = settings
        self._screening = screening

    def is_loaded(self, _: ModelSpec) -> bool:
        """Say no: nothing runs."""
        return False

    def reason(self, spec: ModelSpec) -> str | None:
        """Return that the file is missing or bad, or None."""
        return file_reason(spec, self._screening)

    def tokens_max(self, spec: ModelSpec) -> int:
        """Return what a server would take."""
        return served_tokens_max(spec, self._settings)

    def tuning(self, spec: ModelSpec) -> Tuning | None:
        """Return the last calibration."""
        return read(tuning_path(self._models, spec))


def file_reason(spec: ModelSpec, screening: Screening | None = None) -> str | None:
    """Return that the model's file is missing or failed its trial, or None."""
    if not spec.path.exists():
        return f"its file {spec.path.name} is not on this machine"
    return None if screening is None else screening.refusal(spec)
