"""Schema checks: which of Schemathesis' checks cannot hold here, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Excluded:
    """One check that is not made."""

    check: str
    reason: str


EXCLUDED = (
    Excluded(
        "positive_data_acceptance",
        "a body may be refused for what JSON Schema cannot say: a model's own sizes of vectors and "
        "its task, token ids without their vocabulary, two names of one field that differ, an "
        "overlap of more than half of a part, a file that a batch cannot read",
    ),
)
