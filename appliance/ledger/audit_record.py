"""AuditRecord: when the open books were audited last, and the result.

Owns the state that the audit schedule writes and `gigarouter doctor` reads.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class AuditRecord:
    """The last audit of the books of one process."""

    opened_us: int
    """When the books were opened, which audits balances and the last transfers."""
    whole_us: int | None = None
    """When they were last audited entirely and agreed; None: not yet."""
    problem: str | None = None
    """The first thing that did not agree."""
    error: str | None = None
    """Why the last audit could not be done; None: it could."""

    @property
    def last_us(self) -> int:
        """When the books were last known to agree."""
        return max(self.opened_us, self.whole_us or 0)
