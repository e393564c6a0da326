"""AuditRecord: when the books of this process were audited last, and what came of it.

Owns what the schedule of audits leaves for those who ask how the books are.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class AuditRecord:
    """Written by the schedule, read by `gigarouter doctor`."""

    opened_us: int
    """When the books were opened, which audits balances and the last transfers."""
    whole_us: int | None = None
    """When all of them were audited and agreed; None: not yet."""
    problem: str | None = None
    """The first thing that did not agree."""
    error: str | None = None
    """Why the last audit could not be done; None: it could."""

    @property
    def last_us(self) -> int:
        """When the books were last known to agree."""
        return max(self.opened_us, self.whole_us or 0)
