"""What an operator does with keys, and what becomes of their holders' calls."""

import asyncio
import os

import pytest

from appliance.accounts.keyring import load
from appliance.core.errors import InvalidRequest, KeyNotFound, StoreFailed
from appliance.core.limits import Limits
from appliance.wire.keys import ExpireOrder, LimitOrder, RotatedKey, RotateOrder, TopUpOrder
from tests.appliance import HandClock, bench
from tests.server import EMBED

HOUR, DAY = 3_600, 86_400
ROUNDS = int(os.environ.get("REVOKES", "200"))
"""`REVOKES=1000` for the slow proof."""
BODY = {"model": EMBED, "input": "x"}


def prove(path, story, **settings):
    async def run():
        async with asyncio.timeout(120), bench(path / "data", **settings) as on:
            await story(on)

    asyncio.run(run())


async def status(on, text):
    auth = {"authorization": f"Bearer {text}"}
    return (await on.client.get("/v1/key", headers=auth)).status_code


async def works(on, *texts):
    return [await status(on, text) == 200 for text in texts]


# -- rotation -----------------------------------------------------------------------------------


def test_a_rotated_key_stays_the_same_key_and_its_old_text_works_for_the_overlap(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint(name="team", credit="2", rpm=60, expires="30d")
        before = await keys.show(minted.id)
        made = await keys.rotate(minted.id, RotateOrder(overlap="2h"))
        assert (made.id, made.name) == (minted.id, "team")
        assert made.key != minted.key
        after = await keys.show(minted.id)
        assert after.hint == made.hint == f"{made.key[:7]}…{made.key[-4:]}"
        assert after.retiring == (made.replaced_until,)
        unchanged = ("id", "name", "credit", "rpm", "created", "expires", "scopes", "revoked")
        assert [getattr(after, f) for f in unchanged] == [getattr(before, f) for f in unchanged]
        assert await works(on, minted.key, made.key) == [True, True]
        on.clock.advance(2 * HOUR - 1)
        assert await works(on, minted.key, made.key) == [True, True]
        on.clock.advance(1)
        assert await works(on, minted.key, made.key) == [False, True]
        assert (await keys.show(minted.id)).retiring == ()

    prove(tmp_path, story, preload=False)


def test_both_texts_of_a_rotated_key_spend_the_same_credits_within_the_same_limits(tmp_path):
    async def story(on):
        minted = await on.mint(credit="1", rpm=2)
        made = await on.appliance.admin.keys.rotate(minted.id, RotateOrder())
        answers = []
        for text in (minted.key, made.key, minted.key):
            auth = {"authorization": f"Bearer {text}"}
            answers.append(await on.client.post("/v1/embeddings", json=BODY, headers=auth))
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        costs = [answer.headers["x-balance"] for answer in answers[:2]]
        assert costs == ["0.999999976", "0.999999952"]

    prove(tmp_path, story)


def test_the_overlap_is_a_day_unless_said_and_none_ends_every_older_text_at_once(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint()
        first = await keys.rotate(minted.id, RotateOrder())
        on.clock.advance(DAY - 1)
        assert await works(on, minted.key) == [True]
        last = await keys.rotate(minted.id, RotateOrder(overlap="0"))
        assert await works(on, minted.key, first.key, last.key) == [False, False, True]

    prove(tmp_path, story, preload=False)


def test_a_shorter_overlap_is_for_all_older_texts_and_a_longer_one_for_the_last_alone(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint()
        first = await keys.rotate(minted.id, RotateOrder(overlap="10h"))
        second = await keys.rotate(minted.id, RotateOrder(overlap="20h"))
        on.clock.advance(10 * HOUR)
        assert await works(on, minted.key, first.key, second.key) == [False, True, True]
        third = await keys.rotate(minted.id, RotateOrder(overlap="1h"))
        on.clock.advance(HOUR)
        assert await works(on, first.key, second.key, third.key) == [False, False, True]

    prove(tmp_path, story, preload=False)


def test_two_older_texts_may_work_and_a_third_rotation_waits_or_ends_them(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        texts = [(minted := await on.mint()).key]
        texts += [(await keys.rotate(minted.id, RotateOrder("1h"))).key for _ in range(2)]
        with pytest.raises(InvalidRequest, match=r"2 older secrets .* work until") as refusal:
            await keys.rotate(minted.id, RotateOrder(overlap="1h"))
        assert refusal.value.param == "overlap"
        assert await works(on, *texts) == [True, True, True]
        texts.append((await keys.rotate(minted.id, RotateOrder(overlap="0"))).key)
        assert await works(on, *texts) == [False, False, False, True]

    prove(tmp_path, story, preload=False)


def test_rotations_at_the_same_moment_leave_one_newest_text_and_the_promised_older_ones(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint()
        ends = await asyncio.gather(
            *(keys.rotate(minted.id, RotateOrder()) for _ in range(5)), return_exceptions=True
        )
        made = [end for end in ends if isinstance(end, RotatedKey)]
        assert [type(end) for end in ends[2:]] == [InvalidRequest] * 3
        assert await works(on, minted.key, *(key.key for key in made)) == [True, True, True]
        assert (await keys.show(minted.id)).hint == made[-1].hint

    prove(tmp_path, story, preload=False)


def test_a_rotation_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint()
        before = await keys.show(minted.id)

        async def full(*_, **__):
            raise StoreFailed("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(on.books.writer, "run", full)
            with pytest.raises(StoreFailed):
                await keys.rotate(minted.id, RotateOrder(overlap="0"))
        assert await keys.show(minted.id) == before
        assert await works(on, minted.key) == [True]

    prove(tmp_path, story, preload=False)


def test_a_key_revoked_while_it_is_rotated_stays_revoked_in_memory_and_on_disk(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        for other in (keys.revoke, keys.forget):
            minted = await on.mint()
            made, _ = await asyncio.gather(keys.rotate(minted.id, RotateOrder()), other(minted.id))
            assert await works(on, minted.key, made.key) == [False, False]
            view = await keys.show(minted.id)
            assert view.revoked
            assert bool(view.forgotten) is (other == keys.forget)

    prove(tmp_path, story, preload=False)

    async def again(on):
        assert [key.revoked_us is not None for key in on.books.keyring] == [True, True]

    prove(tmp_path, again, preload=False)


def test_what_was_rotated_holds_after_a_restart(tmp_path):
    texts = []

    async def story(on):
        minted = await on.mint()
        made = await on.appliance.admin.keys.rotate(minted.id, RotateOrder(overlap="1h"))
        texts.extend((minted.key, made.key))

    async def later(on):
        assert await works(on, *texts) == [True, True]
        on.clock.advance(HOUR)
        assert await works(on, *texts) == [False, True]

    prove(tmp_path, story, preload=False)
    prove(tmp_path, later, preload=False)


@pytest.mark.parametrize("end", ["revoke", "forget", "expire"])
def test_a_key_that_is_not_live_is_not_rotated(tmp_path, end):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint(expires="1m")
        if end == "expire":
            on.clock.advance(60)
        else:
            await getattr(keys, end)(minted.id)
        with pytest.raises(InvalidRequest, match="mint another"):
            await keys.rotate(minted.id, RotateOrder())

    prove(tmp_path, story, preload=False)


# -- expiry -------------------------------------------------------------------------------------


def test_an_expiry_can_be_moved_and_taken_away(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint(expires="1h")
        assert (await keys.expire(minted.id, ExpireOrder("2h"))).expires > minted.expires
        on.clock.advance(2 * HOUR - 1)
        assert await works(on, minted.key) == [True]
        on.clock.advance(1)
        assert await works(on, minted.key) == [False]
        assert (await keys.expire(minted.id, ExpireOrder("never"))).expires is None
        on.clock.advance(1000 * DAY)
        assert await works(on, minted.key) == [True]
        with pytest.raises(InvalidRequest, match="never"):
            await keys.expire(minted.id, ExpireOrder("tomorrow"))

    prove(tmp_path, story, preload=False)


def test_no_expiry_brings_a_revoked_key_back(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint()
        await keys.revoke(minted.id)
        await keys.expire(minted.id, ExpireOrder("never"))
        assert await works(on, minted.key) == [False]

    prove(tmp_path, story, preload=False)


# -- limits -------------------------------------------------------------------------------------


def test_limits_are_changed_one_by_one_and_hold_over_a_restart(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint(rpm=60, concurrency=4, daily_budget="1")
        after = await keys.limit(minted.id, LimitOrder(rpm=2, daily_budget=None, models=[EMBED]))
        wanted = (2, 4, None, None, (EMBED,))
        assert _limits(after) == wanted
        assert _limits(await keys.limit(minted.id, LimitOrder(tpm=9))) == (2, 4, 9, None, (EMBED,))
        auth = {"authorization": f"Bearer {minted.key}"}
        told = [
            (await on.client.post("/v1/embeddings", json=BODY, headers=auth)).status_code
            for _ in range(3)
        ]
        assert told == [200, 200, 429]
        with pytest.raises(InvalidRequest, match="name one of daily_budget, rpm"):
            await keys.limit(minted.id, LimitOrder())
        for order, param in ((LimitOrder(rpm=0), "rpm"), (LimitOrder(daily_budget="x"), "daily")):
            with pytest.raises(InvalidRequest, match=param):
                await keys.limit(minted.id, order)
        rows = await on.books.writer.run(load)
        [kept] = [key for key in rows if key.id == minted.id]
        assert (kept.limits.rpm, kept.limits.tpm, kept.limits.models) == (2, 9, (EMBED,))

    prove(tmp_path, story)


def test_no_limit_brings_a_revoked_key_back(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint()
        await keys.revoke(minted.id)
        assert (await keys.limit(minted.id, LimitOrder(rpm=5))).rpm == 5
        assert await works(on, minted.key) == [False]

    prove(tmp_path, story, preload=False)


def _limits(view):
    return view.rpm, view.concurrency, view.tpm, view.daily_budget, view.models


# -- forgetting ---------------------------------------------------------------------------------


def test_a_forgotten_key_shows_as_that_and_its_books_stay(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint(name="Alice", credit="1")
        auth = {"authorization": f"Bearer {minted.key}"}
        assert (await on.client.post("/v1/embeddings", json=BODY, headers=auth)).is_success
        before = await keys.show(minted.id)
        view = await keys.forget(minted.id)
        assert (view.name, view.hint) == ("forgotten", "")
        told = await on.books.writer.run(
            lambda connection: connection.execute(
                "SELECT COUNT(*), COUNT(request_id) FROM transfers WHERE debit = ?", (minted.id,)
            ).fetchone()
        )
        assert told == (1, 0)
        assert view.forgotten == view.revoked
        assert (view.id, view.credit, view.spent_today) == (
            minted.id,
            before.credit,
            before.spent_today,
        )
        assert await works(on, minted.key) == [False]
        on.clock.advance(60)
        assert await keys.forget(minted.id) == view
        listed = await keys.all()
        assert [each.name for each in listed.data] == ["forgotten"]

    prove(tmp_path, story)


@pytest.mark.parametrize(
    "verb", ["rotate", "expire", "limit", "forget", "revoke", "top_up", "show"]
)
def test_a_verb_for_a_key_that_is_not_there_says_so(tmp_path, verb):
    orders = {
        "rotate": [RotateOrder()],
        "expire": [ExpireOrder("1d")],
        "limit": [LimitOrder(rpm=1)],
        "top_up": [TopUpOrder("1")],
    }

    async def story(on):
        with pytest.raises(KeyNotFound):
            await getattr(on.appliance.admin.keys, verb)("key_0", *orders.get(verb, []))

    prove(tmp_path, story, preload=False)


# -- revoking under load ------------------------------------------------------------------------


def test_no_call_is_accepted_after_the_answer_to_a_revocation(tmp_path):
    """In each round four clients call without a pause while their key is revoked; in every second
    one it was rotated before, and half of the clients use the older text."""

    async def client(on, text, served, answered):
        auth = {"authorization": f"Bearer {text}"}
        ends = []
        while True:
            was_revoked = answered.is_set()
            answer = await on.client.post("/v1/embeddings", json=BODY, headers=auth)
            ends.append((was_revoked, answer.status_code))
            if answer.status_code == 200:
                served.set()
            if was_revoked:
                return ends
            # A refusal waits for nothing: four of these alone would take the whole processor.
            await asyncio.sleep(0 if answer.status_code == 200 else 0.002)

    async def story(on):
        keys = on.appliance.admin.keys
        before = 0
        for number in range(ROUNDS):
            minted = await on.mint()
            texts = [minted.key] * 4
            if number % 2:
                made = await keys.rotate(minted.id, RotateOrder())
                texts[2:] = [made.key] * 2
            served, answered = asyncio.Event(), asyncio.Event()
            clients = [asyncio.create_task(client(on, text, served, answered)) for text in texts]
            await served.wait()
            view = await keys.revoke(minted.id)
            answered.set()
            assert view.revoked
            for ends in await asyncio.gather(*clients):
                assert ends[-1] == (True, 401)
                before += sum(code == 200 for _, code in ends)
        assert before >= ROUNDS, "the load was no load"

    # The clients fail on purpose, all from one address.
    prove(tmp_path, story, limits=Limits(failed_keys_per_minute_max=1_000_000))


def test_a_key_is_refused_from_memory_before_the_store_has_heard_of_it(tmp_path):
    async def story(on):
        keys = on.appliance.admin.keys
        minted = await on.mint()
        revoking = asyncio.create_task(keys.revoke(minted.id))
        await asyncio.sleep(0)
        assert await status(on, minted.key) == 401
        assert (await revoking).revoked

    prove(tmp_path, story, preload=False)


def test_a_clock_that_is_set_back_revives_nothing_that_was_ended(tmp_path):
    """Revocations hold whatever the clock says; for expiries the books' clock never goes back."""

    async def story(on):
        assert isinstance(on.clock, HandClock)
        minted = await on.mint()
        await on.appliance.admin.keys.revoke(minted.id)
        on.clock.wall -= DAY * 1_000_000
        assert await works(on, minted.key) == [False]

    prove(tmp_path, story, preload=False)
