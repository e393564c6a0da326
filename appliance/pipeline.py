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
from appliance.call import Answer, Call, Meant, Quote, Timings, within
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import Draining, InferenceFailed, InvalidKey
from appliance.core.failpoint import reach
from appliance.core.limits import Limits
from appliance.core.units import credits_of
from appliance.engine.vectors import Matrix
from appliance.ledger.billing import Billing
from appliance.ledger.entry import Charge, Hold, Purchase
from appliance.model_lookup import ModelLookup
from appliance.planning import (
    INLINE_CHARS,
    USUAL,
    planned,
    planned_in_turn,
    require_bounded,
    tokens_about,
)
from appliance.scheduler.engine import Engine
from appliance.scheduler.job import Job
from appliance.scheduler.lease import Lease
from appliance.scheduler.residency import Residency
from appliance.scheduler.threads import ThreadPool
from appliance.tasks.plan import Plan
from appliance.tasks.task import Task

NS_PER_S = 1_000_000_000
LOOK_S = 0.25
"""How soon a call that waits sees that the server stops."""
REALTIME_FOLLOWS_NS = 1_000_000_000
"""For so long after a realtime call another one is expected."""
INLINE_NUMBERS = 16_384
"""Answers of up to so many numbers are written on the event loop; larger ones take milliseconds."""


class Pipeline:
    """Serves paid calls."""

    def __init__(
        self,
        *,
        models: ModelLookup,
        residency: Residency,
        answers: ThreadPool,
        limiter: Limiter,
        billing: Billing,
        require_live: Callable[[Key], None],
        clock: Clock,
        limits: Limits,
        batch_delay_s: float = 0.0,
    ) -> None:
        self.models = models
        self._residency = residency
        self._answers = answers
        """Where large answers are written: not behind texts that wait for a tokenizer."""
        self._limiter = limiter
        self._billing = billing
        self._require_live = require_live
        """Refuses a key that was revoked or has expired meanwhile."""
        self._clock = clock
        self.limits = limits
        self._batch_delay_s = batch_delay_s
        self.draining = False
        """True: calls in flight finish, new ones are refused."""
        self.in_flight = 0
        self.realtime_in_flight = 0
        self._realtime_ended_ns: int | None = None
        self._jobs: defaultdict[str, set[Job]] = defaultdict(set)
        """What each key waits for."""
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        """Say how many calls are in it."""
        return f"<Pipeline [{self.in_flight} in flight{' | draining' if self.draining else ''}]>"

    def drop(self, key_id: str) -> None:
        """Refuse a revoked key's calls that are queued and not computed yet; they cost nothing."""
        for job in self._jobs.get(key_id, ()):
            job.drop(InvalidKey())

    @property
    def is_realtime_about(self) -> bool:
        """Say whether a realtime call is in flight, or was a moment ago: others may follow."""
        ended_ns = self._realtime_ended_ns
        return self.realtime_in_flight > 0 or (
            ended_ns is not None and self._clock.monotonic_ns() - ended_ns < REALTIME_FOLLOWS_NS
        )

    async def idle(self) -> None:
        """Return as soon as no call is in flight."""
        await self._idle.wait()

    async def quote(self, call: Call, task: Task) -> Quote:
        """Return the exact price of a task without computing or charging anything.

        Raises:
            ApplianceError: every refusal that comes before the price.
        """
        spec = self._admitted(call, task)
        with self._limiter.call(call.key), self._residency.lease(spec) as lease:
            async with within(self.limits.call_seconds_max):
                plan, purchase = await self._price(
                    call, task, spec, lease, Timings(), is_quote=True
                )
        return Quote(spec, plan, purchase.units, credits_of(purchase.amount))

    async def run(self, call: Call, task: Task) -> Answer:
        """Compute a task and charge for it; return the answer.

        The body is rendered before the money moves: one that cannot be made is not charged.
        Cancelling this releases the hold, or refunds the charge if settling has begun; it returns
        when that is done.

        Raises:
            ApplianceError: every refusal of the error table; none of them is charged.
        """
        spec = self._admitted(call, task)
        call.held.take(task.answer_bytes(spec))
        is_realtime = call.tier == "realtime"
        self.in_flight += 1
        self.realtime_in_flight += is_realtime
        self._idle.clear()
        try:
            with (
                self._limiter.call(call.key),
                self._claimed(call),
                call.until_submitted,
                self._residency.lease(spec) as lease,
            ):
                return await self._run(call, task, spec, lease)
        finally:
            self._left()
            if is_realtime:
                self.realtime_in_flight -= 1
                self._realtime_ended_ns = self._clock.monotonic_ns()

    @contextmanager
    def looked_up(
        self, key: Key, model: str | None, meant: Meant
    ) -> Iterator[tuple[ModelSpec, Lease]]:
        """Yield a model and a lease on it, for what needs its tokenizer alone and costs nothing.

        Without a name it is the key's default model for embeddings. It counts as one of the key's
        requests and calls, and as one in flight.

        Raises:
            ApplianceError: every refusal that comes before a text is looked at.
        """
        if self.draining:
            raise Draining
        if model is None:
            spec = self.models.resolve(key, None, "embeddings", meant)
        else:
            spec = self.models.find(key, model, meant)
        self.in_flight += 1
        self._idle.clear()
        try:
            with self._limiter.call(key), self._residency.lease(spec) as lease:
                yield spec, lease
        finally:
            self._left()

    async def delivered(self, answer: Answer) -> None:
        """Note that the answer was handed over: from now on it stays charged, come what may."""
        reach("after_send")
        self._billing.delivery_acks.add(answer.charge.seq)

    def _admitted(self, call: Call, task: Task) -> ModelSpec:
        """Return the model for a task, if this key may call it and it can answer.

        Raises:
            Draining: the server is stopping.
            ModelNotFound: no model has this name, or this key may not know of it.
            WrongTask: it does something else.
            ModelNotServed: its file is missing or unusable.
            ApplianceError: the task does not go with the model.
        """
        if self.draining:
            raise Draining
        spec = self.models.resolve(call.key, task.model, task.kind, call.meant)
        task.validate(spec)
        return spec

    def _left(self) -> None:
        """Note that a call is not in flight any more."""
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    async def _run(self, call: Call, task: Task, spec: ModelSpec, lease: Lease) -> Answer:
        timings = Timings()
        try:
            # Settling is outside: a call that was computed in time is not given up while its
            # charge is on the way to the disk.
            async with asyncio.timeout(self.limits.call_seconds_max) as deadline:
                began_ns = self._clock.monotonic_ns()
                plan, purchase = await self._price(call, task, spec, lease, timings)
                with self._limiter.tokens(call.key, plan.tokens), _in_time(deadline):
                    paid = await self._paid_before(call)
                    waited_s = (self._clock.monotonic_ns() - began_ns) / NS_PER_S
                    engine = await self._engine(
                        call, spec, purchase, is_paid=paid is not None, waited_s=waited_s
                    )
                    await self._wait_for_batch(call)
                    hold = None
                    if paid is None:
                        hold = self._hold(purchase)
                    else:
                        await self._billing.idempotency.count(paid)
                    body = await self._computed(call, task, spec, engine, plan, hold, timings)
                    deadline.reschedule(None)
                    charge = paid or await self._settled(call, hold, timings)
        except TimeoutError:
            raise InferenceFailed("it took too long") from None
        left = self._billing.ledger.available(call.key.id)
        return Answer(spec, plan, purchase.units, charge, left, paid is not None, timings, body)

    async def _computed(
        self,
        call: Call,
        task: Task,
        spec: ModelSpec,
        engine: Engine,
        plan: Plan,
        hold: Hold | None,
        timings: Timings,
    ) -> bytes:
        """Return the body of the answer; the hold is released if there is none."""
        try:
            self._require_live(call.key)
            matrix = await self._compute(engine, call, plan, timings)
            body = await self._rendered(task, spec, plan, matrix)
            # Last: a client that has hung up is not charged for an answer that it cannot read.
            await call.client.require_connected()
        except BaseException:
            if hold is not None:
                self._billing.holds.release(hold)
            raise
        return body

    async def _settled(self, call: Call, hold: Hold | None, timings: Timings) -> Charge:
        assert hold is not None
        began_ns = self._clock.monotonic_ns()
        charge = await self._billing.holds.settle(hold, call.idempotency_key)
        timings.add("settle", began_ns, self._clock.monotonic_ns())
        return charge

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

    async def _wait_for_batch(self, call: Call) -> None:
        """Let a call of the batch tier wait; no longer once the server stops."""
        is_delayed = call.tier == "batch" and not call.is_of_a_batch  # a batch is late by itself
        left_s = min(self._batch_delay_s, call.patience_s) if is_delayed else 0.0
        while left_s > 0 and not self.draining:
            await asyncio.sleep(min(LOOK_S, left_s))
            left_s -= LOOK_S

    def _hold(self, purchase: Purchase) -> Hold:
        reach("before_hold")
        hold = self._billing.holds.open(purchase)
        reach("after_hold")
        return hold

    async def _engine(
        self, call: Call, spec: ModelSpec, purchase: Purchase, *, is_paid: bool, waited_s: float
    ) -> Engine:
        engine = self._residency.ready(spec)
        if engine is None:
            # No money is held while a model is loaded; a call that could not pay is refused now.
            if not is_paid:
                self._billing.ledger.require(purchase)
            left_s = max(0.0, call.wait_s - waited_s)
            engine = await self._residency.wait(spec, wait_s=left_s, key=call.key.id)
        return engine

    async def _price(
        self,
        call: Call,
        task: Task,
        spec: ModelSpec,
        lease: Lease,
        timings: Timings,
        *,
        is_quote: bool = False,
    ) -> tuple[Plan, Purchase]:
        """Tokenize, and so know the exact price."""
        began_ns = self._clock.monotonic_ns()
        encoder = await self._residency.encoder(spec, wait_s=call.wait_s, key=call.key.id)
        texts = task.texts(spec)
        if task.size(texts) <= INLINE_CHARS:
            plan = planned(task, spec, texts, encoder)
        else:
            if not is_quote:
                await self._require_worth(call, task, spec, tokens_about(texts, encoder))
            plan = await planned_in_turn(
                call.key.id, task, spec, texts, encoder, lease, self.limits
            )
        timings.add("tokenize", began_ns, self._clock.monotonic_ns())
        require_bounded(plan.tokens, self.limits, param=task.param)
        return plan, await self._purchase(call, spec, task.units(spec, plan), plan.tokens)

    async def _purchase(self, call: Call, spec: ModelSpec, units: int, tokens: int = 0) -> Purchase:
        return Purchase(
            key_id=call.key.id,
            request_id=call.request_id,
            model=spec.id,
            tier=call.tier,
            units=units,
            each=spec.tariff.each(call.tier),
            price=await self._billing.prices.version(spec.id, spec.tariff),
            daily_budget=call.key.limits.daily_budget,
            tokens=tokens,
        )

    async def _require_worth(self, call: Call, task: Task, spec: ModelSpec, tokens: int) -> None:
        """Refuse a call before its texts are tokenized, if it cannot be paid or would not end.

        `tokens` are those that it has at least, as far as anybody can tell.

        Raises:
            InsufficientCredit, DailyBudgetExceeded: the least that it can cost is too much.
            QueueFull: it would take longer than its caller waits.
        """
        engine = self._residency.ready(spec)
        if engine is not None:
            is_expected = engine.expect(
                key=call.key.id,
                at_least=tokens,
                about=round(tokens * USUAL),
                is_batch=call.tier == "batch",
                patience_s=call.patience_s,
            )
            call.until_submitted.callback(is_expected)
        if call.idempotency_key is None:  # one that was paid for is answered again for nothing
            self._billing.ledger.require(await self._purchase(call, spec, task.units_at_least))

    async def _rendered(self, task: Task, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        if matrix.size <= INLINE_NUMBERS:
            return task.render(spec, plan, matrix)
        return await self._answers.run_admitted(task.render, spec, plan, matrix)

    async def _compute(self, engine: Engine, call: Call, plan: Plan, timings: Timings) -> Matrix:
        reach("before_compute")
        is_batch = call.tier == "batch"
        call.until_submitted.close()
        job = engine.submit(
            plan.sequences, key=call.key.id, is_batch=is_batch, patience_s=call.patience_s
        )
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


@contextmanager
def _in_time(deadline: asyncio.Timeout) -> Iterator[None]:
    """Tell a deadline that has passed from a client that has left: the first is our refusal."""
    try:
        yield
    except asyncio.CancelledError:
        if deadline.expired():
            raise InferenceFailed("it took too long") from None
        raise
