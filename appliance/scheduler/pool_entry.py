"""Pool entry: one file of weights that is tried, waits, is loaded or being freed, and its facts."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from appliance.catalog.spec import ModelSpec
from appliance.engine.load_progress import LoadProgress
from appliance.engine.screening import TrialRun
from appliance.scheduler.engine import Engine

WeightsKey = tuple[Path, str, bool, str | None]
"""File, pooling, segments and SHA-256: two models that compute the same share one engine, and a
file that was replaced gets a new one."""
State = Literal["trying", "waiting", "loading", "loaded", "failed", "leaving"]


def weights_key(spec: ModelSpec) -> WeightsKey:
    """Return what a model computes with."""
    return spec.path, spec.entry.pooling, spec.entry.segments, spec.entry.sha256


@dataclass(slots=True, eq=False)
class PoolEntry:
    """One file of weights."""

    spec: ModelSpec
    bytes: int
    """Memory that it takes, from the moment it begins to load until it is freed."""
    began_ns: int
    expected_s: float
    restarting: bool
    done: asyncio.Future[None]
    """Done when the model can compute, or holds the error that it could not be loaded."""
    tried: asyncio.Future[None]
    """Done when its file needs no trial any more, or holds the error of one that failed."""
    trial: TrialRun | None = None
    """The trial of its file, while that waits or runs."""
    progress: LoadProgress = field(default_factory=LoadProgress)
    """How far its weights are loaded."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its memory is free again."""
    engine: Engine | None = None
    """None: it is tried, or waits for memory."""
    waiters: dict[str, int] = field(default_factory=dict)
    """How many calls of each key wait for it."""
    reason: str = ""
    """Why it could not be loaded; empty otherwise."""
    failed_ns: int = 0
    is_set_aside: bool = False
    """True: it is not loaded again by itself."""
    ready_ns: int = 0
    used_ns: int = 0
    """When it was called last."""
    leaving: bool = False
    """True: it is freed when the last lease on it ends."""

    @property
    def is_usable(self) -> bool:
        """Say whether calls can be computed now."""
        return self.engine is not None and self.engine.is_usable and not self.leaving

    @property
    def takes_memory(self) -> bool:
        """Say whether its weights are in memory, or soon will be."""
        return self.engine is not None and not self.reason

    @property
    def state(self) -> State:
        """Where it is on its way."""
        if self.leaving:
            return "leaving"
        if self.reason:
            return "failed"
        if self.trial is not None:
            return "trying"
        if self.engine is None:
            return "waiting"
        return "loaded" if self.engine.is_usable else "loading"
