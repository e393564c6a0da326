"""The line that every paid call takes, broken off at every place."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from appliance.accounts.held_bytes import HeldBytes
from appliance.accounts.key import Key
from appliance.call import Call
from appliance.core.errors import (
    Draining,
    EngineRestarting,
    IdempotencyKeyInUse,
    InferenceFailed,
    InsufficientCredit,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    ModelWarming,
    RateLimited,
    StoreFailed,
    WrongTask,
)
from appliance.core.limits import Limits
from appliance.ledger.entry import IdempotencyKey
from appliance.planning import INLINE_CHARS
from appliance.scheduler.engine import Engine
from appliance.shapes import openai
from appliance.shapes.rerank import rerank_task
from appliance.tasks.embed import EmbedTask
from appliance.tasks.rerank import RerankTask
from tests.appliance import Bench, Connected, bench

EMBED = "sentence-transformers/all-MiniLM-L6-v2"
TEXT = "five words are quite enough"
TOKENS, PRICE = 7, 56_000
"""Picocredits: 8,000 a token."""
THREADED = "word " * INLINE_CHARS
"""Long enough to be tokenized on a thread."""


async def until(condition) -> None:
    """Let the loop turn until something holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - other threads make it hold
            await asyncio.sleep(0)


def embeddings(body) -> EmbedTask:
    return openai.embed_task(json.dumps(body).encode(), Limits())


def rerank(body) -> RerankTask:
    return rerank_task(json.dumps(body).encode(), Limits(), request_id="req_1")


class Texts(EmbedTask):
    """An embeddings task whose answer the test makes."""

    def __init__(self, sent, render):
        super().__init__(sent, write=lambda _: b"")
        object.__setattr__(self, "_render", render)

    def render(self, spec, plan, matrix):
        return self._render(spec, plan, matrix)


@dataclass
class Line:
    """A bench, one key that may run one call at a time, and the pipeline."""

    bench: Bench
    key: Key

    def __post_init__(self):
        self.pipeline = self.bench.appliance.pipeline
        self.spec = self.bench.appliance.models.catalog.find(EMBED)
        self.writer_gate = threading.Event()
        self.bodies = 0

    def call(self, *, wait_s=30, client=None, idempotency_key=None):
        return Call(
            request_id="req_1",
            key=self.key,
            tier="realtime",
            wait_s=wait_s,
            client=client or Connected(),
            held=HeldBytes(bytes_max=10**9, per_key_max=10**9).of_call(self.key.id),
            idempotency_key=idempotency_key,
        )

    def task(self, texts=(TEXT,), render=None):
        return Texts(embeddings({"model": EMBED, "input": list(texts)}).sent, render or self.render)

    def render(self, _spec, _plan, matrix):
        self.bodies += 1
        return b"%d rows" % len(matrix)

    async def run(self, *, texts=(TEXT,), render=None, **call):
        return await self.pipeline.run(self.call(**call), self.task(texts, render))

    def begin(self, **options):
        return asyncio.create_task(self.run(**options))

    @property
    def engine(self) -> Engine:
        engine = self.bench.appliance.residency.ready(self.spec)
        assert engine is not None
        return engine

    async def sql(self, query: str) -> list[tuple[Any, ...]]:
        return await self.bench.books.writer.run(
            lambda connection: connection.execute(query).fetchall(), durable=False
        )

    async def books(self):
        """(holds ever opened, holds that are open, charges, posted, held)."""
        balances = self.bench.books.balances
        [[charges]] = await self.sql("SELECT COUNT(*) FROM transfers WHERE kind = 'charge'")
        [[posted]] = await self.sql("SELECT posted FROM accounts WHERE kind <> 'system'")
        held = balances.held()[self.key.id]
        return balances._hold_id, balances.holds_open, charges, posted, held

    def block_writer(self):
        """Let the ledger's thread do nothing until `writer_gate` is set; return once it does."""
        entered = threading.Event()

        def wait(_):
            entered.set()
            self.writer_gate.wait(60)

        blocking = threading.Thread(target=self.bench.books.writer.call, args=(wait,))
        blocking.start()
        assert entered.wait(60)
        return blocking

    async def settling(self, **options):
        """Begin a call; return it and the blocked writer once its charge waits to be written."""
        blocking = []

        def render(_spec, _plan, _matrix):
            blocking.append(self.block_writer())
            return b""

        running = self.begin(render=render, **options)
        await until(lambda: blocking and self.waiting_writes() >= 1)
        return running, blocking[0]

    def waiting_writes(self):
        return self.bench.books.writer._mailbox.qsize()

    async def is_cancelled(self, running, *, owes=None):
        """Cancel a call; `owes` is what lets it give back what it owes, and until then it stays."""
        running.cancel()
        if owes is not None:
            await asyncio.wait((running,), timeout=0.05)
            assert not running.done()
            assert self.pipeline.in_flight == 1
            running.cancel()  # a second time: what is owed is given back all the same
            await asyncio.sleep(0)
            owes()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert self.pipeline.in_flight == 0
        await asyncio.wait_for(self.pipeline.idle(), 1)

    async def still_works(self):
        """The same key, which may run one call at a time, is served and charged once."""
        before = await self.books()
        answer = await self.run()
        after = await self.books()
        assert (answer.charge.amount, answer.body) == (PRICE, b"1 rows")
        assert after[2] == before[2] + 1
        assert after[3] == before[3] - PRICE
        assert (after[1], after[4]) == (0, 0)


@asynccontextmanager
async def line(path, *, limits=None, preload=True, credit="1"):
    async with bench(path, limits=limits, preload=preload) as made:
        minted = await made.mint(credit=credit, concurrency=1)
        opened = Line(made, made.books.keyring.get(minted.id))
        # The first call of a model writes its price: that is another story.
        spec = opened.spec
        await opened.pipeline._billing.prices.version(spec.id, spec.tariff)
        try:
            yield opened
        finally:
            opened.writer_gate.set()
            for backend in made.appliance.loader.opened:
                backend.gate.set()


def cold(it, monkeypatch):
    """Let models be loaded only once the returned gate is set."""
    gate = threading.Event()
    loader = it.bench.appliance.loader
    open_model = loader.open_model

    def gated(spec, progress):
        gate.wait(60)
        return open_model(spec, progress)

    monkeypatch.setattr(loader, "open_model", gated)
    return gate


NOTHING = (0, 0, 0, 10**12, 0)
RELEASED = (1, 0, 0, 10**12, 0)
HELD = (1, 1, 0, 10**12, PRICE)
CHARGED = (1, 0, 1, 10**12 - PRICE, 0)
REFUNDED = (1, 0, 1, 10**12, 0)


# -- the whole line -----------------------------------------------------------------------------


def test_a_call_is_computed_charged_and_answered(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            answer = await it.run()
            assert await it.books() == CHARGED
            assert (answer.charge.amount, answer.plan.tokens, answer.body) == (
                PRICE,
                TOKENS,
                b"1 rows",
            )
            assert answer.available == 10**12 - PRICE
            assert list(answer.timings.stages) == ["tokenize", "queue", "inference", "settle"]
            assert repr(it.pipeline) == "<Pipeline [0 in flight]>"

    asyncio.run(story())


def test_a_quote_is_the_price_and_costs_nothing(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            quote = await it.pipeline.quote(it.call(), it.task())
            assert (quote.units, quote.credits) == (TOKENS, Decimal("0.000000056"))
            assert await it.books() == NOTHING
            assert it.bench.backend.computed == []
            await it.still_works()

    asyncio.run(story())


def test_the_hold_stands_while_the_call_is_computed(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            it.bench.backend.gate.clear()
            running = it.begin()
            await until(lambda: it.engine._computing)
            assert await it.books() == HELD
            it.bench.backend.gate.set()
            await running
            assert await it.books() == CHARGED

    asyncio.run(story())


# -- a client that leaves -----------------------------------------------------------------------


def test_a_call_that_is_cancelled_while_tokenizing_costs_nothing(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            gate = threading.Event()
            pool = it.bench.appliance.residency._threads
            busy = [asyncio.create_task(pool.run(gate.wait, 60)) for _ in range(2)]
            running = it.begin(texts=(THREADED,))
            await until(lambda: pool._calls == 3)
            assert it.pipeline.in_flight == 1
            await it.is_cancelled(running)
            gate.set()
            await asyncio.gather(*busy)
            assert await it.books() == NOTHING
            assert it.bench.backend.computed == []
            await it.still_works()

    asyncio.run(story())


def test_a_call_that_is_cancelled_while_its_model_is_loaded_costs_nothing(tmp_path, monkeypatch):
    async def story():
        async with line(tmp_path, preload=False) as it:
            gate = cold(it, monkeypatch)
            running = it.begin()
            entries = it.bench.appliance.residency.pool.entries
            await until(lambda: any(entry.waiters for entry in entries.values()))
            await it.is_cancelled(running)
            gate.set()
            assert await it.books() == NOTHING
            await it.still_works()

    asyncio.run(story())


def test_a_call_that_cannot_pay_is_refused_while_the_writer_is_busy(tmp_path):
    async def story():
        async with line(tmp_path, credit="0.000000056") as it:
            await it.run()
            blocking = it.block_writer()
            with pytest.raises(InsufficientCredit):
                await asyncio.wait_for(it.run(), 30)
            it.writer_gate.set()
            await asyncio.to_thread(blocking.join)
            assert await it.books() == (1, 0, 1, 0, 0)

    asyncio.run(story())


def test_what_a_revoked_key_has_in_the_queue_is_refused_uncomputed_and_costs_nothing(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            backend, engine = it.bench.backend, it.engine
            backend.gate.clear()
            answer = await it.pipeline.quote(it.call(), it.task(["plug"]))
            plug = engine.submit(answer.plan.sequences, key="another")
            await until(lambda: engine._computing and not len(engine._queue))
            running = it.begin()
            await until(lambda: len(engine._queue))
            await it.bench.appliance.admin.keys.revoke(it.key.id)
            with pytest.raises(InvalidKey):
                await running
            assert await it.books() == RELEASED
            backend.gate.set()
            await plug.result()
            assert len(backend.computed) == 1
            assert not it.pipeline._jobs

    asyncio.run(story())


def test_a_call_that_is_cancelled_in_the_queue_is_not_computed_and_costs_nothing(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            backend, engine = it.bench.backend, it.engine
            backend.gate.clear()
            answer = await it.pipeline.quote(it.call(), it.task(["plug"]))
            plug = engine.submit(answer.plan.sequences, key="another")
            await until(lambda: engine._computing and not len(engine._queue))
            running = it.begin()
            await until(lambda: len(engine._queue))
            await it.is_cancelled(running)
            assert await it.books() == RELEASED
            backend.gate.set()
            await plug.result()
            await it.still_works()
            assert backend.computed == [[3], [TOKENS]]

    asyncio.run(story())


def test_a_call_that_is_cancelled_while_it_is_computed_costs_nothing(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            backend = it.bench.backend
            backend.gate.clear()
            running = it.begin()
            await until(lambda: it.engine._computing)
            await it.is_cancelled(running)
            assert await it.books() == RELEASED
            backend.gate.set()
            await it.still_works()
            assert it.bodies == 1

    asyncio.run(story())


def test_a_call_that_is_cancelled_while_it_settles_is_refunded(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            running, writer = await it.settling()
            await it.is_cancelled(running, owes=it.writer_gate.set)
            await asyncio.to_thread(writer.join)
            assert await it.books() == REFUNDED
            [[kind, of]] = await it.sql(
                "SELECT kind, refunds FROM transfers ORDER BY seq DESC LIMIT 1"
            )
            assert (kind, of) == ("refund", 2)
            await it.still_works()

    asyncio.run(story())


def test_an_idempotency_key_is_taken_until_the_refund_of_a_cancelled_call_is_written(tmp_path):
    """Else the same call, sent again, is answered from a charge that is about to be refunded."""
    again = IdempotencyKey(b"t" * 32, b"f" * 32)

    async def story():
        async with line(tmp_path) as it:
            it.key = it.bench.books.keyring.get((await it.bench.mint(credit="1")).id)
            running, _ = await it.settling(idempotency_key=again)
            running.cancel()
            await asyncio.wait((running,), timeout=0.05)
            with pytest.raises(IdempotencyKeyInUse):
                await it.run(idempotency_key=again)
            it.writer_gate.set()
            with pytest.raises(asyncio.CancelledError):
                await running
            answer = await it.run(idempotency_key=again)
            assert not answer.is_replay
            assert answer.available == 10**12 - PRICE
            assert (await it.run(idempotency_key=again)).is_replay

    asyncio.run(story())


def test_a_client_that_is_gone_before_its_answer_is_ready_is_not_charged(tmp_path):
    class Gone:
        async def require_connected(self):
            raise asyncio.CancelledError

    async def story():
        async with line(tmp_path) as it:
            with pytest.raises(asyncio.CancelledError):
                await it.run(client=Gone())
            assert await it.books() == RELEASED
            assert it.bodies == 1
            await it.still_works()

    asyncio.run(story())


class Tokenizing:
    """The model's tokenizer, held on its thread until `gate` is set; freed once, not under it."""

    def __init__(self, tokenizer):
        self.inside, self.entered, self.gate = 0, threading.Event(), threading.Event()
        self.closed = 0
        self._tokenizer = tokenizer

    def encode(self, texts, enough=0):
        self.inside += 1
        self.entered.set()
        self.gate.wait(60)
        assert not self.closed, "its memory is gone"
        self.inside -= 1
        return self._tokenizer.encode(texts, enough)

    def close(self):
        assert not self.inside, "freed under a thread"
        self.closed += 1


@asynccontextmanager
async def tokenizing(it, monkeypatch):
    """Yield a tokenizer in which the thread of a cancelled call still is."""
    residency, loader = it.bench.appliance.residency, it.bench.appliance.loader
    await residency.unload(it.spec)
    open_encoder, made = loader.open_encoder, []

    def opened(spec):
        encoder = open_encoder(spec)
        made.append(Tokenizing(encoder.tokenizer))
        return replace(encoder, tokenizer=made[-1])

    monkeypatch.setattr(loader, "open_encoder", opened)
    running = it.begin(texts=(THREADED,))
    await until(lambda: made and made[0].entered.is_set())
    await it.is_cancelled(running)
    assert made[0].inside == 1
    try:
        yield made[0]
    finally:
        made[0].gate.set()


def test_a_tokenizer_is_not_freed_under_the_thread_of_a_cancelled_call(tmp_path, monkeypatch):
    async def story():
        async with line(tmp_path) as it, tokenizing(it, monkeypatch) as tokenizer:
            residency = it.bench.appliance.residency
            await it.bench.appliance.residency.preload([it.spec])
            unloading = asyncio.create_task(residency.unload(it.spec))
            await asyncio.wait((unloading,), timeout=0.05)
            assert (unloading.done(), tokenizer.closed) == (False, 0)
            tokenizer.gate.set()
            await asyncio.wait_for(unloading, 30)
            assert (tokenizer.inside, tokenizer.closed) == (0, 1)

    asyncio.run(story())


def test_stopping_frees_nothing_under_a_thread_and_does_not_wait_for_it_for_ever(
    tmp_path, monkeypatch, caplog
):
    async def story():
        limits = Limits(close_seconds_max=0.05)
        async with line(tmp_path, limits=limits) as it, tokenizing(it, monkeypatch) as tokenizer:
            await it.bench.appliance.residency.close()
            assert (tokenizer.inside, tokenizer.closed) == (1, 0)

    asyncio.run(story())


def test_stopping_waits_for_the_threads_of_cancelled_calls_and_then_frees(tmp_path, monkeypatch):
    async def story():
        async with line(tmp_path) as it, tokenizing(it, monkeypatch) as tokenizer:
            closing = asyncio.create_task(it.bench.appliance.residency.close())
            await asyncio.wait((closing,), timeout=0.05)
            assert (closing.done(), tokenizer.closed) == (False, 0)
            tokenizer.gate.set()
            await asyncio.wait_for(closing, 30)
            assert (tokenizer.inside, tokenizer.closed) == (0, 1)

    asyncio.run(story())


def test_a_call_that_is_cancelled_anywhere_is_charged_or_costs_nothing(tmp_path):
    """Cancelled after so many turns of the loop, wherever that is."""

    async def story():
        async with line(tmp_path) as it:
            answered = cancelled = 0
            for turns in [*range(40), *range(40, 2000, 49)]:
                running = it.begin()
                for _ in range(turns):
                    await asyncio.sleep(0)
                running.cancel()
                [ended] = await asyncio.gather(running, return_exceptions=True)
                was_cancelled = isinstance(ended, asyncio.CancelledError)
                assert was_cancelled or not isinstance(ended, BaseException)
                answered, cancelled = answered + (not was_cancelled), cancelled + was_cancelled
                await until(lambda: not it.bench.books.balances.holds_open)
                await until(lambda: not it.pipeline._billing.holds._retrying)
                _, _, _, posted, held = await it.books()
                assert (posted, held) == (10**12 - answered * PRICE, 0)
                assert it.pipeline.in_flight == 0
            await it.still_works()
            return answered, cancelled

    answered, cancelled = asyncio.run(story())
    assert answered + cancelled > 0
    assert cancelled > 0


# -- what fails ---------------------------------------------------------------------------------


def test_a_body_that_cannot_be_made_is_not_charged(tmp_path):
    def render(spec, plan, matrix):
        raise ValueError("a bug of ours")

    async def story():
        async with line(tmp_path) as it:
            with pytest.raises(ValueError, match="a bug of ours"):
                await it.run(render=render)
            assert await it.books() == RELEASED
            await it.still_works()

    asyncio.run(story())


def test_a_call_that_the_engine_refuses_is_not_charged(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            it.bench.backend.refuse = True
            with pytest.raises(InferenceFailed):
                await it.run()
            it.bench.backend.refuse = False
            assert await it.books() == RELEASED
            await it.still_works()

    asyncio.run(story())


def test_a_call_under_which_the_engine_dies_is_not_charged_and_the_next_one_is_served(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            it.bench.backend.die = True
            with pytest.raises(EngineRestarting):
                await it.run()
            assert await it.books() == RELEASED
            await it.still_works()

    asyncio.run(story())


def test_a_call_that_takes_too_long_is_given_up_and_not_charged(tmp_path, monkeypatch):
    timeouts = []

    def by_hand(seconds):
        timeouts.append((seconds, unlimited := timeout(None)))
        return unlimited

    timeout = asyncio.timeout

    async def story():
        async with line(tmp_path) as it:
            it.key = replace(it.key, limits=replace(it.key.limits, tpm=100))
            it.bench.backend.gate.clear()
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "timeout", by_hand)
                running = it.begin()
                await asyncio.sleep(0)
            await until(lambda: it.engine._computing)
            [(seconds, bound)] = timeouts
            assert seconds == it.pipeline.limits.call_seconds_max
            bound.reschedule(0)
            with pytest.raises(InferenceFailed, match="it took too long"):
                await running
            assert await it.books() == RELEASED
            assert it.pipeline.in_flight == 0
            left = it.pipeline._limiter.headers(it.key)
            assert left["x-ratelimit-remaining-tokens"] == "100"

    asyncio.run(story())


def test_a_settlement_that_fails_releases_the_hold(tmp_path, monkeypatch):
    async def fails(*_):
        raise StoreFailed("the disk is full")

    async def story():
        async with line(tmp_path) as it:
            with monkeypatch.context() as patch:
                patch.setattr(it.pipeline._billing.ledger, "settle", fails)
                with pytest.raises(StoreFailed, match="the disk is full"):
                    await it.run()
            assert await it.books() == RELEASED
            await it.still_works()

    asyncio.run(story())


def test_a_hold_that_ended_already_is_logged_and_hides_no_error(tmp_path, monkeypatch, caplog):
    async def story():
        async with line(tmp_path) as it:
            release = it.pipeline._billing.ledger.release

            def twice(hold):
                release(hold)
                release(hold)

            monkeypatch.setattr(it.pipeline._billing.ledger, "release", twice)
            it.bench.backend.refuse = True
            with pytest.raises(InferenceFailed, match="told to refuse"):
                await it.run()
            assert await it.books() == RELEASED

    asyncio.run(story())
    assert "hold 1 was resolved twice" in caplog.text


# -- what is refused ----------------------------------------------------------------------------


def test_a_call_that_cannot_pay_is_refused_before_it_is_computed(tmp_path):
    async def story():
        async with line(tmp_path, credit="0.00000005") as it:
            with pytest.raises(InsufficientCredit) as refused:
                await it.run()
            assert (refused.value.required, refused.value.available) == (
                "0.000000056",
                "0.00000005",
            )
            assert it.bench.backend.computed == []
            assert (await it.books())[0] == 0

    asyncio.run(story())


def test_a_call_that_cannot_pay_does_not_wait_for_a_cold_model_first(tmp_path, monkeypatch):
    async def story():
        async with line(tmp_path, preload=False, credit="0") as it:
            gate = cold(it, monkeypatch)
            with pytest.raises(InsufficientCredit):
                await it.run()
            gate.set()

    asyncio.run(story())


def test_a_call_that_does_not_wait_for_a_cold_model_costs_nothing(tmp_path, monkeypatch):
    async def story():
        async with line(tmp_path, preload=False) as it:
            gate = cold(it, monkeypatch)
            with pytest.raises(ModelWarming):
                await it.run(wait_s=0)
            assert await it.books() == NOTHING
            gate.set()
            await it.still_works()

    asyncio.run(story())


def test_a_second_call_of_a_key_that_may_run_one_is_refused_and_the_first_goes_on(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            it.bench.backend.gate.clear()
            running = it.begin()
            await until(lambda: it.engine._computing)
            with pytest.raises(RateLimited):
                await it.run()
            assert it.pipeline.in_flight == 1
            it.bench.backend.gate.set()
            await running
            assert await it.books() == CHARGED

    asyncio.run(story())


def test_a_call_of_too_many_tokens_is_refused_before_its_price_is_held(tmp_path):
    async def story():
        limits = Limits(request_tokens_max=20)
        async with line(tmp_path, limits=limits) as it:
            with pytest.raises(
                InvalidRequest, match="the call has 21 tokens; 20 at most"
            ) as refused:
                await it.run(texts=[TEXT] * 3)
            assert refused.value.param == "input"
            assert await it.books() == NOTHING
            await it.still_works()

    asyncio.run(story())


def test_a_model_is_resolved_by_name_task_and_allow_list(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            quote = it.pipeline.quote

            def embed(model):
                return embeddings({"model": model, "input": TEXT})

            def rank(model):
                return rerank({"model": model, "query": "a", "documents": ["b"]})

            assert (await quote(it.call(), embed("ALL-MINILM-L6-V2"))).spec.id == EMBED
            with pytest.raises(ModelNotFound):
                await quote(it.call(), embed("none"))
            with pytest.raises(WrongTask):
                await quote(it.call(), rank(EMBED))
            minted = await it.bench.mint(name="other", models=["starter-rerank"])
            it.key = it.bench.books.keyring.get(minted.id)
            # Nor does another task, or a name that is nearly right, tell that it is there.
            for task in (embed(EMBED), rank(EMBED), embed("all-minilm-l6-v")):
                with pytest.raises(ModelNotFound) as refused:
                    await quote(it.call(), task)
                assert "Did you mean" not in refused.value.message
            assert (await quote(it.call(), rank("starter-rerank"))).spec.task == "rerank"

    asyncio.run(story())


# -- draining -----------------------------------------------------------------------------------


def test_draining_refuses_new_calls_and_lets_those_in_flight_finish(tmp_path):
    async def story():
        async with line(tmp_path) as it:
            await asyncio.wait_for(it.pipeline.idle(), 1)
            it.bench.backend.gate.clear()
            running = it.begin()
            await until(lambda: it.engine._computing)
            it.pipeline.draining = True
            assert repr(it.pipeline) == "<Pipeline [1 in flight | draining]>"
            with pytest.raises(Draining):
                await it.run()
            idle = asyncio.create_task(it.pipeline.idle())
            await asyncio.sleep(0)
            assert not idle.done()
            it.bench.backend.gate.set()
            await running
            await asyncio.wait_for(idle, 1)
            assert await it.books() == CHARGED

    asyncio.run(story())


def test_a_settlement_that_fails_after_the_client_left_releases_the_hold(tmp_path, monkeypatch):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def fails(*_):
        begun.set()
        await go_on.wait()
        raise StoreFailed("the disk is full")

    async def story():
        async with line(tmp_path) as it:
            with monkeypatch.context() as patch:
                patch.setattr(it.pipeline._billing.ledger, "settle", fails)
                running = asyncio.create_task(it.run())
                await begun.wait()
                await it.is_cancelled(running, owes=go_on.set)
                assert await it.books() == RELEASED
            await it.still_works()

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_refund_that_the_store_would_not_take_is_made_once_it_works_again(tmp_path, monkeypatch):
    tries = []

    async def story():
        async with line(tmp_path) as it:
            ledger = it.pipeline._billing.ledger
            refund = ledger.refund

            async def fails_twice(seq):
                tries.append(seq)
                if len(tries) < 3:
                    raise StoreFailed("the disk is full")
                return await refund(seq)

            monkeypatch.setattr("appliance.ledger.holds.REFUND_PAUSES_S", (0, 0, 0))
            monkeypatch.setattr(ledger, "refund", fails_twice)
            running, writer = await it.settling()
            await it.is_cancelled(running, owes=it.writer_gate.set)
            await asyncio.to_thread(writer.join)
            while await it.books() != REFUNDED:  # noqa: ASYNC110 - the books ring no bell
                await asyncio.sleep(0)
            assert tries == [2, 2, 2]
            await it.still_works()

    asyncio.run(asyncio.wait_for(story(), 30))
