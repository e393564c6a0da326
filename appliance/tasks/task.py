"""Task: what the pipeline asks of a call's body, whatever its endpoint.

A new kind of question to a model is one file beside this one, which implements `Task`, and one
route, which makes the task of a body. The pipeline calls it in the order of the methods here.
"""

from collections.abc import Sequence
from typing import Protocol

from appliance.catalog.spec import ModelSpec
from appliance.engine.loader import TextEncoder
from appliance.engine.vectors import Matrix
from appliance.pricing.tariff import TaskKind
from appliance.sequences.sequence import Tokens
from appliance.tasks.plan import Plan

WHOLE = 1 << 30
"""More tokens than any text has."""


class Task(Protocol):
    """One checked body of one endpoint."""

    @property
    def kind(self) -> TaskKind:
        """What a model must do to be asked this."""
        ...

    @property
    def model(self) -> str | None:
        """The model's name as the client sent it; None: it named none."""
        ...

    @property
    def shape(self) -> str:
        """Return what tells apart how one body is read; empty: as OpenAI's or our own."""
        ...

    @property
    def param(self) -> str:
        """The field of the body that holds the texts."""
        ...

    def tokens_enough(self, tokens_max: int) -> int:
        """Return after how many tokens of a text the others make no difference."""
        ...

    def validate(self, spec: ModelSpec) -> None:
        """Refuse what can be refused before any work.

        Raises:
            ApplianceError: this model cannot answer this body.
        """
        ...

    def texts(self, spec: ModelSpec) -> list[str]:
        """Return the texts to tokenize."""
        ...

    def size(self, texts: Sequence[str]) -> int:
        """Return about how many characters there are to tokenize."""
        ...

    def plan(
        self, spec: ModelSpec, tokens: Sequence[Tokens], encoder: TextEncoder, tokens_max: int
    ) -> Plan:
        """Return the sequences to compute.

        `tokens` are those of each of `texts`, int32[n_tokens]; `tokens_max` is the longest
        sequence. May be called on another thread than the loop's.

        Raises:
            InputTooLong, InvalidRequest: a text cannot be computed as the client wants it.
        """
        ...

    @property
    def units_at_least(self) -> int:
        """The fewest native units that can be billed, known before anything is tokenized."""
        ...

    def units(self, spec: ModelSpec, plan: Plan) -> int:
        """Return how many native units are billed: tokens or documents."""
        ...

    def answer_bytes(self, spec: ModelSpec) -> int:
        """Return about how many bytes the answer will have."""
        ...

    def render(self, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        """Return the body of the answer.

        `matrix` holds the unnormalised rows, float32[n_sequences, width]. May be called on another
        thread than the loop's.
        """
        ...


def usage_of(plan: Plan) -> dict[str, int]:
    """Return the `usage` of an answer: tokens computed, texts that were cut, windows of texts."""
    counted = {"prompt_tokens": plan.tokens, "total_tokens": plan.tokens}
    if plan.truncated:
        counted["truncated"] = plan.truncated
    if plan.windows is not None:
        counted["windows"] = len(plan.sequences)
    return counted
