"""Call: one paid call on its way through the pipeline.

Owns the shapes that the HTTP side and the pipeline hand each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from appliance.accounts.key import Key
from appliance.catalog.spec import ModelSpec
from appliance.engine.loader import TextEncoder
from appliance.engine.vectors import Matrix
from appliance.ledger.entry import Charge, IdempotencyKey
from appliance.pricing.tariff import Tier
from appliance.tasks.embedding import Plan
from appliance.tasks.sequence import Tokens

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call besides its body."""

    request_id: str
    key: Key
    tier: Tier
    wait_s: int
    """How long to wait for a cold model."""
    idempotency_key: IdempotencyKey | None = None
    """How the call is known again if its client sends it twice; None: it is not."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a task asks of the pipeline."""

    texts: list[str]
    plan: Callable[[list[Tokens], TextEncoder, int], Plan]
    """(tokens of each text, encoder, longest sequence) -> sequences; may refuse."""
    documents: int | None
    """How many documents are billed; None: tokens are."""
    truncate: bool
    """False: a text that is too long is refused, with its number of tokens."""


@dataclass(slots=True)
class Timings:
    """Milliseconds of each stage, for the `server-timing` header."""

    stages: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, from_ns: int, to_ns: int) -> None:
        """Note one stage."""
        self.stages[stage] = max(0, to_ns - from_ns) / NS_PER_MS


@dataclass(frozen=True, slots=True)
class Answer:
    """A computed and settled call."""

    spec: ModelSpec
    plan: Plan
    units: int
    """Tokens or documents."""
    charge: Charge
    is_replay: bool
    """True: the first call with its Idempotency-Key was charged, and this one is not."""
    timings: Timings


@dataclass(frozen=True, slots=True)
class Quote:
    """What a call would cost."""

    plan: Plan
    units: int
    """Tokens or documents."""
    credits: Decimal


Finish = Callable[[ModelSpec, Plan, Matrix], bytes]
"""Makes the body of the answer from the unnormalised rows, float32[n_sequences, width]."""
