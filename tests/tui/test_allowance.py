"""What a key may do is said in full: its balance against what it was given, its limits with use."""

from decimal import Decimal

import msgspec
import pytest
from textual.widgets import DataTable

from appliance.wire.stats import Activity
from tests.tui.fake import FakeServer, key
from tests.tui.test_stories import SIZES, cells, drawn, play, settled
from tui.screens.allowance import limits_of, share_left, state_of

FULL, NONE = "\u2588", "\u2591"


def row_of(app, name):
    return next(row for row in cells(app, "#keys") if row[0] == name)


def test_a_bar_is_what_is_left_of_what_was_granted_and_no_other_key_changes_it():
    async def story(app, pilot, gateway):
        await pilot.press("3")
        half = f"{FULL * 2}{NONE * 3} $5.00"
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        await settled(pilot, lambda: row_of(app, "alice")[1] == half)
        gateway.keys.append(key("rich", credit=Decimal(900)))
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 3)
        assert row_of(app, "alice")[1] == half
        assert row_of(app, "rich")[1] == f"{FULL * 5} $900.00"

    play(story)


def test_a_key_that_is_refused_for_lack_of_credit_is_empty_and_not_live():
    async def story(app, pilot, gateway):
        gateway.keys.append(key("dry", credit=Decimal(0)))
        gateway.keys.append(key("tired", daily_budget=Decimal(1), spent_today=Decimal(1)))
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 4)
        assert row_of(app, "dry")[3] == "no credit"
        assert row_of(app, "tired")[3] == "budget used"
        assert row_of(app, "alice")[3] == "live"

    play(story)


def test_dust_that_pays_for_no_call_is_empty_once_a_call_was_refused_and_not_after_a_top_up():
    stats = FakeServer().stats
    [answered, refused] = stats.recent
    dust = key("dust", credit=Decimal("0.00001"))
    spent = Decimal(5)
    calls = [msgspec.structs.replace(refused, key="dust")]
    assert state_of(dust, spent, stats) == "live"
    assert state_of(dust, spent, msgspec.structs.replace(stats, recent=calls)) == "no credit"
    calls.insert(0, msgspec.structs.replace(answered, key="dust"))
    assert state_of(dust, spent, msgspec.structs.replace(stats, recent=calls)) == "live"
    full = key("dust", credit=Decimal(5))
    assert state_of(full, spent, msgspec.structs.replace(stats, recent=calls[1:])) == "live"


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({"revoked": "now"}, "revoked"),
        ({"revoked": "now", "forgotten": "now"}, "forgotten"),
        ({"expires": "2026-11-25T09:00:00Z"}, "expired"),
        ({"expires": "2026-12-25T09:00:00Z"}, "until 25 Dec"),
        ({"expires": "2027-01-05T09:00:00Z"}, "until 2027"),
        ({"credit": None}, "live"),
    ],
)
def test_a_state_is_why_a_key_works_or_does_not(facts, wanted):
    assert state_of(key("k", **facts), Decimal(0), FakeServer().stats) == wanted


def test_a_key_that_was_given_nothing_has_nothing_left():
    assert share_left(key("k", credit=Decimal(0)), Decimal(0)) == 0
    assert share_left(key("k", credit=Decimal(-1)), Decimal(1)) == 0


LIMITED = key(
    "alice",
    credit=Decimal("7.5"),
    spent_today=Decimal("0.5"),
    daily_budget=Decimal(2),
    rpm=120,
    tpm=50_000,
    concurrency=4,
    models=("owner/a-model", "owner/another-model"),
    expires="2026-12-25T09:00:00Z",
)


@pytest.mark.parametrize("size", SIZES)
def test_limits_that_do_not_fit_end_with_an_ellipsis_and_the_budget_is_first(size):
    gateway = FakeServer()
    gateway.keys = [LIMITED]

    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 1)
        shown = cells(app, "#keys")[0][4]
        assert shown.startswith("$2.00 a day, 120")
        assert shown.endswith("\u2026")
        assert limits_of(LIMITED).startswith(shown[:-1])
        assert shown in drawn(app)

    play(story, gateway, size=size)


@pytest.mark.parametrize("size", [(80, 24), (120, 48)])
def test_the_page_of_a_key_shows_every_limit_with_what_is_used_of_it(size):
    gateway = FakeServer()
    gateway.keys = [LIMITED]
    activity = [Activity("alice", 30, 9_000, 0, 0)]
    gateway.stats = msgspec.structs.replace(gateway.stats, keys=activity)

    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 1)
        await pilot.press("enter")
        await settled(pilot, lambda: "requests a minute" in drawn(app))
        page = drawn(app)
        for words in (
            "infer, usage",
            "owner/a-model, owner/another-model",
            "2026-12-25",
            "$0.01 of $7.51 granted",
            f"{FULL * 3}{NONE * 9} $0.50 of $2.00 today",
            f"{FULL * 3}{NONE * 9} 30 of 120 in the last minute",
            "9.0k of 50.0k in the last minute",
        ):
            assert words in page, page
        assert "calls at one time" in page

    play(story, gateway, size=size)
