"""Bodies and answers in memory: bounded for a key and in all, whoever sends or reads slowly."""

import asyncio
from contextlib import asynccontextmanager

import orjson
import pytest

from appliance.api.sending import PIECE_BYTES, TimedSend
from appliance.core.limits import Limits
from tests.api.test_http import scope_of
from tests.appliance import bench
from tests.server import EMBED

BODY = 100_000
LIMITS = Limits(
    body_bytes_max=1_000_000,
    text_bytes_max=1_000_000,
    held_bytes_max=16 * BODY,
    held_bytes_per_key_max=4 * BODY,
    answer_seconds_max=0.2,
)


class Caller:
    """One request whose body and answer the test moves by hand."""

    def __init__(self, app, key, *, declares, path="/v1/embeddings"):
        headers = [(b"authorization", key["authorization"].encode())]
        if declares:
            headers.append((b"content-length", str(BODY).encode()))
        self.scope = scope_of("POST", path, *headers)
        self.status = None
        self.sent = 0
        self.is_told = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._pieces = asyncio.Queue()
        self._task = asyncio.create_task(app(self.scope, self._receive, self._send))

    async def _receive(self):
        return await self._pieces.get()

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_told.set()
        else:
            await self.may_read.wait()
            self.sent += len(message["body"])

    def piece(self, body, *, is_last=False):
        self._pieces.put_nowait({"type": "http.request", "body": body, "more_body": not is_last})

    async def settled(self):
        for _ in range(50):
            await asyncio.sleep(0)

    async def answer(self):
        async with asyncio.timeout(20):
            await self._task
        return self.status


def body_of(texts=("hello",), size=BODY):
    body = orjson.dumps({"model": EMBED, "input": list(texts)})
    return body + b" " * (size - len(body))


@asynccontextmanager
async def opened(tmp_path):
    async with bench(tmp_path / "data", limits=LIMITS) as on:
        yield on


def held_of(on):
    """Return the count of the server's own."""
    return on.appliance.app.on_refused.__self__._held


@pytest.mark.parametrize("declares", [True, False])
def test_unfinished_bodies_of_a_key_hold_no_more_than_its_share(tmp_path, declares):
    async def story():
        async with opened(tmp_path) as on:
            key, other = await on.key(), await on.key()
            app, held = on.appliance.app, held_of(on)
            calls = [Caller(app, key, declares=declares) for _ in range(10)]
            for call in calls:
                call.piece(body_of()[: BODY // 2])
                call.piece(body_of()[BODY // 2 : BODY - 1])
                await call.settled()
                assert held.total <= LIMITS.held_bytes_per_key_max
            waiting, refused = calls[:4], calls[4:]
            for call in refused:  # they are read to their end, so that their clients see the answer
                call.piece(b" ", is_last=True)
                assert await call.answer() == 429
            stranger = Caller(app, other, declares=declares)
            stranger.piece(body_of(), is_last=True)
            assert await stranger.answer() == 200, "another key is not touched"
            for call in waiting:
                call.piece(b" ", is_last=True)
            for call in waiting:
                # Their answers need room, too, which the last of them may have to wait for.
                assert await call.answer() in (200, 429)
            assert held.total == 0
            again = Caller(app, key, declares=declares)
            again.piece(body_of(), is_last=True)
            assert await again.answer() == 200
            assert held.total == 0

    asyncio.run(story())


def test_many_keys_together_hold_no_more_than_the_whole(tmp_path):
    async def story():
        async with opened(tmp_path) as on:
            held = held_of(on)
            calls = []
            for _ in range(8):
                key = await on.key()
                calls += [Caller(on.appliance.app, key, declares=True) for _ in range(4)]
            for call in calls:
                call.piece(body_of()[:-1])
                await call.settled()
                assert held.total <= LIMITS.held_bytes_max
            assert held.total > LIMITS.held_bytes_max // 2
            for call in calls:
                call.piece(b" ", is_last=True)
            told = [await call.answer() for call in calls]
            assert set(told) == {200, 429}
            assert told.count(429) >= 16
            assert held.total == 0

    asyncio.run(story())


def test_a_small_question_with_a_large_answer_counts_as_its_answer(tmp_path):
    async def story():
        async with opened(tmp_path) as on:
            key, held = await on.key(), held_of(on)
            ask = orjson.dumps({"model": EMBED, "input": ["a"] * 60})
            calls = [Caller(on.appliance.app, key, declares=False) for _ in range(4)]
            for call in calls:
                call.may_read.clear()
                call.piece(ask, is_last=True)
                await call.settled()
            async with asyncio.timeout(60):
                await asyncio.gather(*(call.is_told.wait() for call in calls))
            told = [call.status for call in calls]
            assert told.count(429) == 3, "one answer of 279 kB is in memory, and 400 kB at most"
            assert held.total > 200_000
            calls[0].may_read.set()
            assert await calls[0].answer() == 200
            assert calls[0].sent > 200_000
            for call in calls[1:]:
                call.may_read.set()
                await call.answer()
            assert held.total == 0

    asyncio.run(story())


def test_a_client_that_never_reads_is_cut_off_and_its_answer_freed(tmp_path):
    async def story():
        async with opened(tmp_path) as on:
            key, held = await on.key(), held_of(on)
            call = Caller(on.appliance.app, key, declares=False)
            call.may_read.clear()
            call.piece(orjson.dumps({"model": EMBED, "input": ["a"] * 60}), is_last=True)
            assert await call.answer() == 200, "it was computed, and charged"
            assert call.sent == 0
            assert held.total == 0

    asyncio.run(story())


def test_a_call_that_ends_in_any_way_holds_nothing(tmp_path):
    async def story():
        async with opened(tmp_path) as on:
            held = held_of(on)
            poor, rich = await on.key(credit="0"), await on.key()
            for key, body in (
                (poor, body_of()),
                (rich, b"{"),
                (rich, orjson.dumps({"model": "nothing", "input": "a"})),
                (rich, orjson.dumps({"model": EMBED, "input": "a", "dimensions": 7})),
            ):
                call = Caller(on.appliance.app, key, declares=False)
                call.piece(body, is_last=True)
                assert await call.answer() in (400, 402, 404)
                assert held.total == 0
            gone = Caller(on.appliance.app, rich, declares=True)
            gone.piece(body_of()[:10])
            await gone.settled()
            assert held.total == BODY
            gone._pieces.put_nowait({"type": "http.disconnect"})
            await gone.answer()
            assert held.total == 0

    asyncio.run(story())


# -- sending ---------------------------------------------------------------------------------------


def sent_by(body, *, more=False, seconds_max=5.0, wait=None):
    """Return the messages that arrive, and whether the answer was cut off."""
    got = []

    async def send(message):
        if wait is not None and len(got) >= wait:
            await asyncio.Event().wait()
        got.append(message)

    async def story():
        timed = TimedSend(send, seconds_max=seconds_max)
        await timed({"type": "http.response.start", "status": 200, "headers": []})
        await timed({"type": "http.response.body", "body": body, "more_body": more})
        await timed({"type": "http.response.body", "body": b"", "more_body": False})
        return timed.is_cut

    return got, asyncio.run(story())


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 1_000_003])
@pytest.mark.parametrize("more", [False, True])
def test_an_answer_arrives_whole_and_in_order(size, more):
    body = bytes(number % 251 for number in range(size))
    got, is_cut = sent_by(body, more=more)
    pieces = got[1:-1]
    assert b"".join(each["body"] for each in pieces) == body
    assert all(len(each["body"]) <= PIECE_BYTES for each in pieces)
    assert [each["more_body"] for each in pieces] == [True] * (len(pieces) - 1) + [more]
    assert not is_cut


def test_whoever_reads_a_little_now_and_then_is_cut_off_too(monkeypatch):
    monkeypatch.setattr("appliance.api.sending.BYTES_PER_S", 100 * PIECE_BYTES)
    got = []

    async def send(message):
        await asyncio.sleep(0.15)
        got.append(message)

    async def story():
        timed = TimedSend(send, seconds_max=0.5)
        whole = bytes(20 * PIECE_BYTES)
        await timed({"type": "http.response.body", "body": whole, "more_body": False})
        return timed.is_cut

    assert asyncio.run(story()), "three seconds of reading, 0.7 allowed"
    assert 1 <= len(got) < 20


def test_after_the_cut_nothing_is_sent_any_more():
    got, is_cut = sent_by(bytes(10 * PIECE_BYTES), seconds_max=0.05, wait=3)
    assert is_cut
    assert len(got) == 3
    assert all(each.get("more_body", True) for each in got), "its end is missing"
