"""Device: one place where models can be computed, and how much memory it has."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Device:
    """A processor or an accelerator."""

    name: str
    description: str
    kind: str
    """`cpu`, `gpu`, `igpu` or `accelerator`."""
    memory: int
    """Bytes; 0: not known."""
    free: int
    """Bytes of `memory` that are not taken."""

    def bounded(self, *, memory: int, available: int) -> "Device":
        """Return the device with at most so much memory; `available` of 0 is not known."""
        size = min(self.memory or memory, memory)
        return replace(self, memory=size, free=min(size, available or size))
