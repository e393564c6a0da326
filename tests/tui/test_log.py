"""Reading the log: what is shown is said, fields are left, lines are found, wrapped and followed."""

import pytest
from textual.widgets import Input, RichLog

from appliance.wire.logs import LogLine
from tests.tui.fake import FakeServer
from tests.tui.test_stories import drawn, play, settled


def many(count=60, text="line {}"):
    gateway = FakeServer()
    gateway.lines = [
        LogLine(n, "2026-11-25T09:00:00Z", "info", "x", text.format(n)) for n in range(1, count + 1)
    ]
    return gateway


def lines(app):
    return [line.text.rstrip() for line in app.query_one("#log", RichLog).lines]


async def opened(app, pilot, count):
    await pilot.press("5")
    await settled(pilot, lambda: len(lines(app)) == count)


def test_esc_leaves_the_filter_and_no_match_level_and_filter_are_said():
    async def story(app, pilot, _):
        await opened(app, pilot, 4)
        assert "every level" in drawn(app)
        await pilot.press("l")
        await settled(pilot, lambda: "warnings and worse" in drawn(app))
        await pilot.press("l", "l", "slash", *"nowhere")
        await settled(pilot, lambda: "no line matches: esc shows all" in drawn(app))
        assert "with nowhere" in drawn(app)
        assert "esc" in drawn(app).splitlines()[-1]
        await pilot.press("escape")
        await settled(pilot, lambda: len(lines(app)) == 4)
        assert app.query_one("#filter", Input).value == ""
        assert app.focused is app.query_one("#log")
        await pilot.press("slash", *"listen", "enter", "escape")  # one that was kept, too
        await settled(pilot, lambda: len(lines(app)) == 4)

    play(story, size=(80, 24))


def test_f_finds_and_n_goes_on_and_back_around_the_ends():
    async def story(app, pilot, _):
        await opened(app, pilot, 60)
        await pilot.press("f", *"line 1", "enter")
        await settled(pilot, lambda: "11 of 11: line 1" in drawn(app))
        await pilot.press("n")
        await settled(pilot, lambda: "1 of 11: line 1" in drawn(app))
        assert "info     line 1 " in drawn(app)
        await pilot.press("N")
        await settled(pilot, lambda: "11 of 11: line 1" in drawn(app))
        assert len(lines(app)) == 60
        await pilot.press("escape", "f", *"nothing", "enter")
        await settled(pilot, lambda: "nothing has nothing" in drawn(app))

    play(story, many(), size=(80, 24))


def test_who_reads_further_up_stays_there_until_asked():
    async def story(app, pilot, gateway):
        await opened(app, pilot, 60)
        log = app.query_one("#log", RichLog)
        await settled(pilot, lambda: log.is_vertical_scroll_end)
        await pilot.press("home")
        await settled(pilot, lambda: log.scroll_y == 0 and "stays (F" in drawn(app))
        gateway.lines.append(LogLine(61, "2026-11-25T09:00:00Z", "info", "x", "new"))
        await settled(pilot, lambda: len(lines(app)) == 61)
        await pilot.pause(0.1)
        assert log.scroll_y == 0
        await pilot.press("F")
        await settled(pilot, lambda: log.is_vertical_scroll_end and "follows (F)" in drawn(app))

    play(story, many(), size=(80, 24))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_long_lines_wrap_or_are_scrolled_sideways(size):
    async def story(app, pilot, _):
        await pilot.press("5")
        await settled(pilot, lambda: "THE END" in drawn(app))
        log = app.query_one("#log", RichLog)
        assert not log.show_horizontal_scrollbar
        await pilot.press("w")
        await settled(pilot, lambda: "THE END" not in drawn(app))
        for _ in range(300):
            log.scroll_right(animate=False)
        await settled(pilot, lambda: "THE END" in drawn(app))

    play(story, many(1, "word " * 50 + "THE END"), size=size)
