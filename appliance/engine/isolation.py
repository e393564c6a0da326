"""Isolation: which models are computed in a process of their own.

Owns that choice, and how long such a process may take over one batch.
"""

from dataclasses import dataclass
from typing import Literal

from appliance.catalog.catalog import BUILTIN
from appliance.catalog.spec import ModelSpec

CHILD_BYTES = 64 << 20
"""What a process of a model's own takes beside the model: Python and the libraries."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What the operator chose, and the limit of one batch."""

    mode: Literal["auto", "process", "none"]
    batch_seconds_max: float
    """A process that takes longer over one batch hangs, and is ended."""

    def applies(self, spec: ModelSpec) -> bool:
        """Say whether a model gets a process of its own: a foreign file does, unless told not to.

        Its entry in the catalogue comes before the setting.
        """
        chosen = spec.entry.isolation or self.mode
        return chosen == "process" or (chosen == "auto" and not spec.entry.file.startswith(BUILTIN))


NOWHERE = Isolation("none", 0.0)
"""Every model is computed in this process."""
