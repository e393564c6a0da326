"""Pipeline: the line that every paid call takes. Read this file first.

    resolve the model -> is it served -> the key's limits -> tokenize -> exact price
    -> hold the price -> compute -> settle, durably -> answer -> delivered

Owns that order and two promises: a hold always ends, once; a call is charged exactly when its
answer is about to be handed over, and never otherwise.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.accounts.key import Key
from appliance.accounts.limiter import Limiter
from appliance.call import Answer, Call, Finish, Question, Quote, Timings
from appliance.catalog.catalog import Catalog
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import (
    Draining,
    InferenceFailed,
    InvalidKey,
    InvalidRequest,
)
from appliance.core.failpoint import reach
from appliance.core.limits import Limits
from appliance.core.units import credits_of
from appliance.engine.tokenizer import TOKENS_ENOUGH
from appliance.engine.vectors import Matrix
from appliance.ledger.billing import Billing
from appliance.ledger.entry import Charge, Hold, Purchase
from appliance.scheduler.engine import Engine
from appliance.scheduler.job import Job
from appliance.scheduler.residency import Residency
from appliance.scheduler.threads import ThreadPool
from appliance.tasks.embedding import Plan

INLINE_CHARS = 500
"""Texts up to this are tokenized on the event loop: that takes less than waking another thread."""
INLINE_NUMBERS = 16_384
"""Answers of up to so many numbers are written on the event loop; larger ones take milliseconds."""


class Pipeline:
    """Serves paid calls."""

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        residency: Residency,
        threads: ThreadPool,
        limiter: Limiter,
        billing: Billing,
        require_live: Callable[[Key], None],
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._catalog = catalog
        self._residency = residency
        self._threads = threads
        self._limiter = limiter
        self._billing = billing
        self._require_live = require_live
        """Refuses a key that was revoked or has expired meanwhile."""
        self._clock = clock
        self.limits = limits
        self.draining = False
        """True: calls in flight finish, new ones are refused."""
        self.in_flight = 0
        self._jobs: defaultdict[str, set[Job]] = defaultdict(set)
        """What each key waits for."""
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        """Say how many calls are in it."""
        return f"<Pipeline [{self.in_flight} in flight{' | draining' if self.draining else ''}]>"

    def drop(self, key_id: str) -> None:
        """Refuse what a revoked key has in the queue and nobody computes yet; it costs nothing."""
        for job in self._jobs.get(key_id, ()):
            job.drop(InvalidKey())

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
        catalog = self._catalog()
        if call.key.limits.models is not None:
            # What this key may not call is not there for it: not found, and not named as near.
            catalog = Catalog([spec for spec in catalog if call.key.may_call(spec.id)])
        spec = catalog.resolve(name, "embeddings" if task == "embeddings" else "rerank")
        self._residency.require_served(spec)
        return spec

    async def quote(self, call: Call, spec: ModelSpec, question: Question) -> Quote:
        """Return the exact price of a question without computing or charging anything.

        Raises:
            ApplianceError: every refusal that comes before the price.
        """
        with self._limiter.call(call.key), self._residency.using(spec):
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
            with self._limiter.call(call.key), self._claimed(call), self._residency.using(spec):
                return await self._run(call, spec, question, finish)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def delivered(self, answer: Answer) -> None:
        """Note that the answer was handed over: from now on it stays charged, come what may."""
        reach("after_send")
        self._billing.delivery_acks.add(answer.charge.seq)

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
                paid = await self._paid_before(call)
                engine = await self._engine(call, spec, purchase, is_paid=paid is not None)
                hold = None if paid else await self._hold(purchase)
                try:
                    self._require_live(call.key)
                    matrix = await self._compute(engine, call, plan, timings)
                    body = await self._finished(finish, spec, plan, matrix)
                except BaseException:
                    if hold is not None:
                        await self._billing.holds.release(hold)
                    raise
        except TimeoutError:
            raise InferenceFailed("it took too long") from None
        began_ns = self._clock.monotonic_ns()
        charge = paid
        if charge is None:
            assert hold is not None
            charge = await self._billing.holds.settle(hold, call.idempotency_key)
        timings.add("settle", began_ns, self._clock.monotonic_ns())
        return Answer(spec, plan, purchase.units, charge, paid is not None, timings), body

    @contextmanager
    def _claimed(self, call: Call) -> Iterator[None]:
        if call.idempotency_key is None:
            yield
            return
        with self._billing.idempotency.claim(call.key.id, call.idempotency_key):
            yield

    async def _paid_before(self, call: Call) -> Charge | None:
        if call.idempotency_key is None:
            return None
        return await self._billing.idempotency.find(call.key.id, call.idempotency_key)

    async def _hold(self, purchase: Purchase) -> Hold:
        reach("before_hold")
        hold = await self._billing.holds.open(purchase)
        reach("after_hold")
        return hold

    async def _engine(
        self, call: Call, spec: ModelSpec, purchase: Purchase, *, is_paid: bool
    ) -> Engine:
        engine = self._residency.ready(spec)
        if engine is None:
            # No money is held while a model is loaded; but a call that could not pay hears so now.
            if not is_paid:
                await self._billing.ledger.require(purchase)
            engine = await self._residency.wait(spec, wait_s=call.wait_s, key=call.key.id)
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
            each=spec.tariff.each(call.tier),
            price=await self._billing.prices.version(spec.id, spec.tariff),
            daily_budget=call.key.limits.daily_budget,
        )

    async def _finished(self, finish: Finish, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        if matrix.size <= INLINE_NUMBERS:
            return finish(spec, plan, matrix)
        return await self._threads.run_admitted(finish, spec, plan, matrix)

    async def _compute(self, engine: Engine, call: Call, plan: Plan, timings: Timings) -> Matrix:
        reach("before_compute")
        is_batch = call.tier == "batch"
        job = engine.submit(plan.sequences, key=call.key.id, is_batch=is_batch)
        waiting = self._jobs[call.key.id]
        waiting.add(job)
        try:
            matrix = await job.result()
        finally:
            waiting.discard(job)
            if not waiting:
                self._jobs.pop(call.key.id, None)
        reach("after_compute")
        timings.add("queue", job.queued_ns, job.started_ns)
        timings.add("inference", job.started_ns, job.finished_ns)
        return matrix
