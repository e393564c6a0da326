"""Pipeline: the line that every paid call takes. Read this file first.

    resolve the model -> is it served -> the key's limits -> tokenize -> exact price
    -> hold the price -> compute -> settle, durably -> answer

Owns that order and two promises: a hold always ends, once; a call is charged exactly when its
answer is about to be handed over, and never otherwise. Deliberately knows no HTTP.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from appliance.accounts.key import Key
from appliance.accounts.limiter import Limiter
from appliance.catalog.catalog import Catalog
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import (
    Draining,
    InferenceFailed,
    InvalidRequest,
    ModelNotFound,
)
from appliance.core.limits import Limits
from appliance.core.units import Picocredits, credits_of
from appliance.engine.loader import TextEncoder
from appliance.engine.tokenizer import TOKENS_ENOUGH
from appliance.engine.vectors import Matrix
from appliance.ledger.entry import Balance, Purchase
from appliance.ledger.holds import Holds
from appliance.ledger.ledger import Ledger
from appliance.pricing.tariff import Tier
from appliance.scheduler.engine import Engine
from appliance.scheduler.residency import Residency
from appliance.scheduler.threads import ThreadPool
from appliance.tasks.embedding import Plan
from appliance.tasks.sequence import Tokens

NS_PER_MS = 1_000_000
INLINE_CHARS = 500
"""Texts up to this are tokenized on the event loop: that takes less than waking another thread."""
INLINE_NUMBERS = 16_384
"""Answers of up to so many numbers are written on the event loop; larger ones take milliseconds."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call besides its body."""

    request_id: str
    key: Key
    tier: Tier
    wait_s: int
    """How long to wait for a cold model."""


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
    cost: Picocredits
    balance: Balance
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


class Pipeline:
    """Serves paid calls."""

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        residency: Residency,
        threads: ThreadPool,
        limiter: Limiter,
        ledger: Ledger,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._catalog = catalog
        self._residency = residency
        self._threads = threads
        self._limiter = limiter
        self._ledger = ledger
        self._holds = Holds(ledger)
        self._clock = clock
        self.limits = limits
        self.draining = False
        """True: calls in flight finish, new ones are refused."""
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        """Say how many calls are in it."""
        return f"<Pipeline [{self.in_flight} in flight{' | draining' if self.draining else ''}]>"

    async def idle(self) -> None:
        """Return as soon as no call is in flight."""
        await self._idle.wait()

    def resolve(self, call: Call, name: str, task: str) -> ModelSpec:
        """Return the model for this task, if this key may call it and its file is here.

        Raises:
            Draining: the server is stopping.
            ModelNotFound: no model has this name, or this key may not know of it.
            WrongTask: it does something else.
            ModelNotServed: its file is missing or unusable.
        """
        if self.draining:
            raise Draining
        assert task in ("embeddings", "rerank")
        spec = self._catalog().resolve(name, "embeddings" if task == "embeddings" else "rerank")
        if not call.key.may_call(spec.id):
            raise ModelNotFound(model=name, near=[])
        self._residency.require_served(spec)
        return spec

    async def quote(self, call: Call, spec: ModelSpec, question: Question) -> Quote:
        """Return the exact price of a question without computing or charging anything.

        Raises:
            ApplianceError: every refusal that comes before the price.
        """
        with self._limiter.call(call.key):
            plan, purchase = await self._price(call, spec, question, Timings())
        return Quote(plan, purchase.units, credits_of(purchase.amount))

    async def run(
        self, call: Call, spec: ModelSpec, question: Question, finish: Finish
    ) -> tuple[Answer, bytes]:
        """Compute a question and charge for it; return the answer and its body.

        `finish` makes the body before the money moves: one that cannot be made is not charged.
        Cancelling this releases the hold, unless settling has begun.

        Raises:
            ApplianceError: every refusal of the error table; none of them is charged.
        """
        self.in_flight += 1
        self._idle.clear()
        try:
            with self._limiter.call(call.key):
                return await self._run(call, spec, question, finish)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def _run(
        self, call: Call, spec: ModelSpec, question: Question, finish: Finish
    ) -> tuple[Answer, bytes]:
        timings = Timings()
        try:
            # Settling is outside: a call that was computed in time is not given up while its
            # charge is on the way to the disk.
            async with asyncio.timeout(self.limits.call_seconds_max):
                plan, purchase = await self._price(call, spec, question, timings)
                self._limiter.take_tokens(call.key, plan.tokens)
                engine = await self._engine(call, spec, purchase)
                hold = await self._holds.open(purchase)
                try:
                    matrix = await self._compute(engine, call, plan, timings)
                    body = await self._finished(finish, spec, plan, matrix)
                except BaseException:
                    await self._holds.release(hold)
                    raise
        except TimeoutError:
            raise InferenceFailed("it took too long") from None
        began_ns = self._clock.monotonic_ns()
        balance = await self._holds.settle(hold)
        timings.add("settle", began_ns, self._clock.monotonic_ns())
        return Answer(spec, plan, purchase.amount, balance, timings), body

    async def _engine(self, call: Call, spec: ModelSpec, purchase: Purchase) -> Engine:
        engine = self._residency.ready(spec)
        if engine is None:
            # No money is held while a model is loaded; but a call that could not pay hears so now.
            await self._ledger.require(purchase)
            engine = await self._residency.wait(spec, wait_s=call.wait_s)
        return engine

    async def _price(
        self, call: Call, spec: ModelSpec, question: Question, timings: Timings
    ) -> tuple[Plan, Purchase]:
        """Tokenize, and so know the exact price."""
        began_ns = self._clock.monotonic_ns()
        encoder = await self._residency.encoder(spec)
        tokens_max = min(spec.entry.max_input_tokens, encoder.tokens_max)
        enough = tokens_max if question.truncate else TOKENS_ENOUGH

        def planned() -> Plan:
            tokens = encoder.tokenizer.encode(question.texts, enough)
            return question.plan(tokens, encoder, tokens_max)

        is_small = sum(map(len, question.texts)) <= INLINE_CHARS
        plan = planned() if is_small else await self._threads.run(planned)
        timings.add("tokenize", began_ns, self._clock.monotonic_ns())
        if plan.tokens > self.limits.request_tokens_max:
            raise InvalidRequest(
                f"the call has {plan.tokens} tokens; {self.limits.request_tokens_max} at most: "
                "split it",
                param="input" if question.documents is None else "documents",
            )
        units = plan.tokens if question.documents is None else question.documents
        return plan, Purchase(
            key_id=call.key.id,
            request_id=call.request_id,
            model=spec.id,
            tier=call.tier,
            units=units,
            amount=spec.tariff.quote(units, tier=call.tier),
            daily_budget=call.key.limits.daily_budget,
        )

    async def _finished(self, finish: Finish, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        if matrix.size <= INLINE_NUMBERS:
            return finish(spec, plan, matrix)
        return await self._threads.run_admitted(finish, spec, plan, matrix)

    async def _compute(self, engine: Engine, call: Call, plan: Plan, timings: Timings) -> Matrix:
        is_batch = call.tier == "batch"
        job = engine.submit(plan.sequences, key=call.key.id, is_batch=is_batch)
        matrix = await job.result()
        timings.add("queue", job.queued_ns, job.started_ns)
        timings.add("inference", job.started_ns, job.finished_ns)
        return matrix
