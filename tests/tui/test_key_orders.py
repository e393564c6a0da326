"""Keys: limits, expiry, rotation and forgetting ask what is needed, and send what was meant."""

from decimal import Decimal

import msgspec
import pytest
from textual.widgets import DataTable, Input

from tests.tui.fake import KEY, FakeServer, key
from tests.tui.test_forms import typed, values, wrong
from tests.tui.test_stories import SIZES, cells, drawn, play, settled
from tui.screens.dialogs import Confirm, Secret
from tui.screens.form import Form


async def keys(app, pilot, count=2):
    await pilot.press("3")
    await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == count)


async def form(app, pilot, letter):
    await pilot.press(letter)
    await settled(pilot, lambda: isinstance(app.screen, Form))


def names(app):
    return [row[0] for row in cells(app, "#keys")]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_limits_are_shown_as_they_are_and_only_what_was_changed_is_sent(size):
    gateway = FakeServer()
    gateway.keys[0] = key("alice", rpm=60, tpm=1000, daily_budget=Decimal("0.5"), models=("a", "b"))

    async def story(app, pilot, gateway):
        await keys(app, pilot)
        await form(app, pilot, "e")
        assert values(app) == {
            "daily_budget": "0.5",
            "rpm": "60",
            "tpm": "1000",
            "concurrency": "",
            "models": "a, b",
        }
        typed(app, rpm="0")
        await pilot.press("enter")
        await settled(pilot, lambda: "rpm" in wrong(app))
        typed(app, rpm="30", tpm="", concurrency="4")
        await pilot.press("enter")
        await settled(pilot, lambda: gateway.sent)
        sent = {"rpm": 30, "tpm": None, "concurrency": 4}
        assert gateway.sent == [("POST", "/keys/key_alice/limits", sent)]
        await settled(pilot, lambda: "30 requests/min" in drawn(app) or size[0] == 80)
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        await form(app, pilot, "e")
        await pilot.press("enter")  # nothing changed, nothing is sent
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        assert len(gateway.sent) == 1

    play(story, gateway, size=size)


def test_the_end_of_a_key_is_moved_and_taken_away():
    async def story(app, pilot, gateway):
        await keys(app, pilot)
        await form(app, pilot, "x")
        assert "alice works without an end" in drawn(app)
        await pilot.press("enter")
        await settled(pilot, lambda: wrong(app) == {"expires": "a time like 30d, or never"})
        typed(app, expires="30d")
        await pilot.press("enter")
        await settled(pilot, lambda: gateway.sent)
        assert gateway.sent == [("POST", "/keys/key_alice/expire", {"expires": "30d"})]
        await settled(pilot, lambda: cells(app, "#keys")[0][3] == "until 25 Dec")
        await settled(pilot, lambda: "alice works until 2026-12-25T09:00:00Z" in drawn(app))

    play(story)


def test_a_rotation_asks_how_long_the_old_secret_works():
    async def story(app, pilot, gateway):
        await keys(app, pilot)
        await form(app, pilot, "o")
        assert values(app) == {"overlap": "24h"}
        typed(app, overlap="a while")
        await pilot.press("enter")
        await settled(pilot, lambda: "or 0" in wrong(app).get("overlap", ""))
        typed(app, overlap="0")
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, Secret))
        assert KEY in drawn(app)
        assert gateway.sent == [("POST", "/keys/key_alice/rotate", {"overlap": "0"})]

    play(story)


def test_a_key_is_forgotten_only_after_a_yes_and_a_revoked_one_too():
    async def story(app, pilot, gateway):
        await keys(app, pilot)
        await pilot.press("d")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await settled(pilot, lambda: "Forget alice?" in drawn(app))
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        assert not gateway.sent
        await pilot.press("d")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await settled(pilot, lambda: gateway.sent == [("DELETE", "/keys/key_alice", None)])
        await settled(pilot, lambda: names(app) == ["bob"])
        await pilot.press("a")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 3)
        await pilot.press("down", "down", "d")  # one that is revoked
        await settled(pilot, lambda: isinstance(app.screen, Confirm))

    play(story)


def test_a_key_that_is_over_is_not_rotated_and_an_unlimited_one_not_topped_up():
    gateway = FakeServer()
    gateway.keys = [
        key("over", expires="2026-11-25T09:00:00Z"),
        key("free", credit=None, created="2026-11-26T08:00:00Z"),
    ]

    async def story(app, pilot, _):
        await keys(app, pilot)
        footer = lambda: drawn(app).splitlines()[-1]  # noqa: E731 - read again each time
        await settled(pilot, lambda: "e Limits" in footer())
        assert "Rotate" not in footer()
        await pilot.press("down")
        await settled(pilot, lambda: "o Rotate" in footer())
        assert "Top up" not in footer()

    play(story, gateway)


def test_keys_are_sorted_by_what_b_says_and_the_cursor_stays_on_its_key():
    gateway = FakeServer()
    gateway.keys = [
        key("Zoe", credit=Decimal(1), created="2026-01-01", last_used="2026-11-20T00:00:00Z"),
        key("anna", credit=None, created="2026-01-02", spent_today=Decimal(0)),
        key("mike", credit=Decimal(9), created="2026-01-03", spent_today=Decimal(2)),
    ]
    gateway.keys[2] = msgspec.structs.replace(gateway.keys[2], last_used="2026-11-24T00:00:00Z")
    orders = [
        ("by name", ["anna", "mike", "Zoe"]),
        ("by credit left", ["anna", "mike", "Zoe"]),
        ("by spent today", ["mike", "Zoe", "anna"]),
        ("by last used", ["mike", "Zoe", "anna"]),
        ("by expiry", ["Zoe", "anna", "mike"]),
        ("by age", ["Zoe", "anna", "mike"]),
    ]

    async def story(app, pilot, _):
        await keys(app, pilot, 3)
        table = app.query_one("#keys", DataTable)
        for said, wanted in orders:
            await pilot.press("b")
            await settled(pilot, lambda w=wanted, s=said: names(app) == w and s in drawn(app))
            assert names(app)[table.cursor_row] == "Zoe"

    play(story, gateway)


@pytest.mark.parametrize("size", SIZES)
def test_a_filter_finds_keys_by_name_and_model_and_esc_shows_all_again(size):
    gateway = FakeServer()
    gateway.keys = [key("Team Red"), key("Team Blue", models=("owner/ranker",)), key("solo")]

    async def story(app, pilot, _):
        await keys(app, pilot, 3)
        await pilot.press("slash", *"team")
        await settled(pilot, lambda: names(app) == ["Team Red", "Team Blue"])
        assert "2 keys   with team (esc shows all)" in drawn(app)
        await pilot.press("enter", "down")  # the table has the focus again
        assert app.focused.id == "keys"
        await pilot.press("slash", *" rank", "enter")
        await settled(pilot, lambda: names(app) == ["Team Blue"])
        await pilot.press("escape")
        await settled(pilot, lambda: len(names(app)) == 3)
        assert not app.query_one("#tab-keys .search", Input).display

    play(story, gateway, size=size)
