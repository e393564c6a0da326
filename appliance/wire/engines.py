"""Engines: what the operator's API says of models in memory."""

import msgspec


class PinOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep a model in memory, or no longer."""

    id: str
    pinned: bool = True


class EngineView(msgspec.Struct, frozen=True):
    """One model that is in memory, or on its way."""

    model: str
    state: str
    """`absent`, `trying` (in a process of its own), `waiting` (for memory), `loading`, `loaded`,
    `failed` or `leaving`."""
    bytes: int
    """Memory, estimated from the file."""
    pinned: bool
    calls: int
    """That compute with it now, or wait for it."""
    waiting_tokens: int
    idle_s: float
    """Since it was called last."""
    progress: float
    """0 to 1: how much of its weights is loaded."""
    reason: str | None
    step: str | None = None
    """What the trial of its file does now."""
    note: str | None = None
    """What was done to its file since it was loaded, which the next load will meet."""
    also: tuple[str, ...] = ()
    """Other models that are computed with the same weights: they come, stay and leave with it."""


class DeviceView(msgspec.Struct, frozen=True):
    """Where models can be computed."""

    name: str
    description: str
    kind: str
    """`cpu`, `gpu`, `igpu` or `accelerator`."""
    memory: int
    """Bytes; 0: not known."""
    free: int


class EngineList(msgspec.Struct, frozen=True):
    """Everything in memory, what it takes, and what it may take."""

    data: list[EngineView]
    memory_taken: int
    memory_max: int | None
    devices: list[DeviceView]
    cores: int = 0
    """Processor cores that models are computed on; 0: not known."""
