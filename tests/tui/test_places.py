"""Where things are: keys go where the eyes are, and what is said covers nothing."""

import asyncio
import json

import msgspec
import pytest
from textual.widgets import DataTable, Tabs

from appliance.wire.doctor import Report
from appliance.wire.stats import CallView
from tests.tui.fake import FakeServer, key
from tests.tui.test_stories import drawn, play, settled
from tui.app import Console
from tui.screens.ended import Ended

SIZES = [(80, 24), (120, 40)]


def footer(app):
    return drawn(app).splitlines()[-1]


@pytest.mark.parametrize("size", SIZES)
def test_tab_and_a_click_on_the_tabs_leave_the_keys_to_the_pane(size):
    async def story(app, pilot, _):
        for number, words in (("1", "History"), ("2", "Unload"), ("3", "Mint"), ("5", "Filter")):
            await pilot.press(number)
            await settled(pilot, lambda w=words: w in footer(app))
            await pilot.press("tab", "tab", "shift+tab")
            await pilot.pause(0.1)
            assert words in footer(app), (number, footer(app))
        await pilot.click("Tab#--content-tab-tab-keys")
        await settled(pilot, lambda: "m Mint" in footer(app))
        assert isinstance(app.focused, DataTable)
        assert not app.query_one(Tabs).can_focus

    play(story, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_a_notification_covers_nothing(size):
    gateway = FakeServer()
    gateway.keys = [key(f"key-{n:02}") for n in range(60)]

    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 60)
        await settled(pilot, lambda: "60 keys" in drawn(app))
        hint = drawn(app).splitlines()[-2].strip()
        app.notify("alice has 5 more")
        app.notify("it is refused: " + "a long reason " * 12, severity="error")
        await settled(pilot, lambda: "alice has 5 more" in drawn(app))
        for toast in app.screen.query("Toast"):
            for other in app.screen.query("#keys, #key-detail, .hint, Footer, #status"):
                assert not toast.region.overlaps(other.region), other
        assert hint in drawn(app)
        assert "a long reason" in drawn(app)

    play(story, gateway, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_a_table_with_more_rows_than_lines_has_no_bar_below_it(size):
    gateway = FakeServer()
    gateway.keys = [key(f"key-{n:02}") for n in range(60)]

    async def story(app, pilot, _):
        await pilot.press("3")
        table = app.query_one("#keys", DataTable)
        await settled(pilot, lambda: table.row_count == 60 and table.show_vertical_scrollbar)
        await pilot.pause(0.2)
        for number in "12345":
            await pilot.press(number)
            await pilot.pause(0.3)
            shown = [w for w in app.screen.query("*") if w.show_horizontal_scrollbar and w.size]
            assert shown == [], number

    play(story, gateway, size=size)


def test_panels_side_by_side_have_a_line_between_them_at_80():
    async def story(app, pilot, _):
        await settled(pilot, lambda: "alice" in drawn(app))
        row = next(line for line in drawn(app).splitlines() if "stage" in line)
        assert row.count("\u2502") == 2

    play(story, size=(80, 24))


def test_a_code_has_the_room_that_names_leave():
    gateway = FakeServer()
    refused = CallView(
        "2026-11-25T09:59:58Z", 402, "insufficient_credit", "al", "m", "", 0, "0", 1, "r"
    )
    gateway.stats = msgspec.structs.replace(gateway.stats, recent=[refused])

    async def story(app, pilot, _):
        await settled(pilot, lambda: "402 insufficient_credit " in drawn(app))

    play(story, gateway, size=(80, 24))


@pytest.mark.parametrize("size", [(79, 24), (80, 23), (50, 15)])
def test_a_terminal_that_is_too_small_is_told_so(size):
    async def story(app, pilot, _):
        await settled(pilot, lambda: f"{size[0]}x{size[1]} cuts" in drawn(app))
        await pilot.resize_terminal(80, 24)
        await settled(pilot, lambda: " cuts what" not in drawn(app))

    play(story, size=size)


def test_the_theme_is_there_again_and_one_that_cannot_be_kept_is_said(tmp_path):
    kept = tmp_path / "console.json"

    async def run(chosen, wanted, said):
        app = Console(server=None, caller=FakeServer(), kept=kept)
        async with app.run_test(size=(100, 32), notifications=True) as pilot:
            assert app.theme == wanted
            app.theme = chosen
            await settled(pilot, lambda: said in drawn(app))
            return drawn(app)

    refused = "The theme is not kept"
    assert refused not in asyncio.run(run("textual-light", "textual-dark", "Throughput"))
    assert json.loads(kept.read_text()) == {"theme": "textual-light"}
    asyncio.run(run("high-contrast", "textual-light", "Throughput"))
    kept.write_text('{"theme": "none of ours"}')
    asyncio.run(run("textual-dark", "textual-dark", "Throughput"))
    kept.unlink()
    kept.mkdir()
    assert refused in asyncio.run(run("nord", "textual-dark", refused))


def test_a_picture_that_cannot_be_saved_says_why(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")

    async def story(app, pilot, _):
        app.deliver_screenshot(path=str(blocked / "below"))
        await settled(pilot, lambda: "The picture was not saved" in drawn(app))
        assert "Not a directory" in drawn(app)
        assert "Failed to save" not in drawn(app)

    play(story)


def test_a_restart_that_the_console_asked_for_is_no_crash():
    async def story(app, pilot, gateway):
        app._is_restarting = True
        app._say("restarting the server")
        gateway.lost = True
        await pilot.pause(0.5)
        said = drawn(app)
        assert "restarting the server" in said
        assert "trying again" not in said
        assert not app.query_one("#tabs").has_class("stale")
        assert not app.query_one(Ended).has_class("shown")
        gateway.lost = False
        await settled(pilot, lambda: "up 1h" in drawn(app))

    play(story)


def test_only_who_asks_for_the_check_has_the_hub_asked():
    gateway = FakeServer()
    asked, answer = [], gateway.answer

    def noted(path, names, kind, order):
        if kind is Report:
            asked.append(names)
        return answer(path, names, kind, order)

    gateway.answer = noted

    async def story(app, pilot, _):
        await pilot.press("5")
        await settled(pilot, lambda: asked)
        assert asked[0] == ("false",)
        await pilot.press("c")
        await settled(pilot, lambda: asked[-1] == ("true",))

    play(story, gateway)
