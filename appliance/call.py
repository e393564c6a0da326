"""Call: one paid call on its way through the pipeline.

Owns the shapes that the HTTP side and the pipeline hand each other.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from appliance.accounts.held_bytes import CallBytes
from appliance.accounts.key import Key
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InferenceFailed
from appliance.core.units import Picocredits
from appliance.ledger.entry import BatchLine, Charge, Repeatable
from appliance.pricing.tariff import Tier
from appliance.tasks.plan import Plan

NS_PER_MS = 1_000_000


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Give up what takes longer than so many seconds.

    Raises:
        InferenceFailed: it took too long.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise InferenceFailed("it took too long") from None


class Client(Protocol):
    """The other end of a call."""

    async def require_connected(self) -> None:
        """Return if the client is still there, and cancel the call as soon as it is not.

        Raises:
            asyncio.CancelledError: it has hung up.
        """
        ...


@dataclass(slots=True)
class Meant:
    """Which model a request means: a refusal is counted for it, too."""

    model: str = ""
    """Its id as soon as it is known; empty until then, and where the catalogue has no such name."""


PATIENCE_S = 60.0
"""Of a caller who does not say how long it waits."""
PATIENCE_BATCH_S = 300.0
"""Of a call of the batch tier: it was told that others come first."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call besides its task."""

    request_id: str
    key: Key
    tier: Tier
    wait_s: int
    """How long to wait for a cold model."""
    client: Client
    held: CallBytes
    """What it holds of the memory for bodies and answers."""
    patience_s: float = PATIENCE_S
    """How long the caller lets it wait for its turn at the engine."""
    until_submitted: ExitStack = field(default_factory=ExitStack)
    """What ends when its texts are tokenized and given to the engine, or never will be."""
    idempotency_key: Repeatable | None = None
    """How the call is known again if its client sends it twice; None: it is not."""
    meant: Meant = field(default_factory=Meant)

    @property
    def is_of_a_batch(self) -> bool:
        """Say whether it is a line of a batch: nobody waits for it."""
        return isinstance(self.idempotency_key, BatchLine)


@dataclass(slots=True)
class Timings:
    """The stages of one call, for the `server-timing` header."""

    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By stage, when it began and ended, by the monotonic clock."""

    def add(self, stage: str, from_ns: int, to_ns: int) -> None:
        """Note one stage."""
        self.spans[stage] = from_ns, max(from_ns, to_ns)

    @property
    def stages(self) -> dict[str, float]:
        """Return the milliseconds of each stage."""
        return {name: (end - start) / NS_PER_MS for name, (start, end) in self.spans.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """A computed and settled call."""

    spec: ModelSpec
    plan: Plan
    units: int
    """Tokens or documents."""
    charge: Charge
    available: Picocredits | None
    """What the key can still spend; None: it is unlimited."""
    is_replay: bool
    """True: the first call with its Idempotency-Key was charged, and this one is not."""
    timings: Timings
    body: bytes

    @property
    def tokens_sold(self) -> int:
        """Tokens that it is counted with; none where the same call was answered before."""
        return 0 if self.is_replay else self.plan.tokens

    @property
    def documents_sold(self) -> int:
        """Documents that it is counted with, likewise; none where tokens are sold."""
        return self.units if self.spec.task == "rerank" and not self.is_replay else 0


@dataclass(frozen=True, slots=True)
class Quote:
    """What a call would cost."""

    spec: ModelSpec
    plan: Plan
    units: int
    """Tokens or documents."""
    credits: Decimal
