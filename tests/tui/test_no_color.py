"""What is sent to a terminal without colours, or to whoever asked for none."""

import os
import subprocess
import sys

import pytest
from textual.widgets import DataTable

from tests.tui.test_stories import play, settled
from tui.app import Console


def strips(app):
    """Yield each piece of text that is drawn now, with its style."""
    compositor = app.screen._compositor
    for strip in compositor.render_strips(app.size):
        yield from ((segment.text, segment.style) for segment in strip if segment.style)


def coloured(app):
    return [
        text
        for text, style in strips(app)
        for colour in (style.color, style.bgcolor)
        if colour is not None and not colour.is_default
    ]


def reversed_texts(app):
    return " ".join(text for text, style in strips(app) if style.reverse)


async def every_tab(app, pilot):
    for number in "12345":
        await pilot.press(number)
        await pilot.pause(0.2)
        assert coloured(app) == [], number
    await pilot.press("3")
    await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count > 1)
    await settled(pilot, lambda: "alice" in reversed_texts(app))
    assert "3 Keys" in reversed_texts(app)
    await pilot.press("m")
    await settled(pilot, lambda: app.screen.query("#field-name"))
    assert coloured(app) == []


def test_whoever_asks_for_no_colour_gets_none_and_sees_where_the_cursor_is(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def story(app, pilot, _):
        await every_tab(app, pilot)

    play(story)


def test_a_terminal_without_colours_gets_none(monkeypatch):
    prepare = Console.__init__

    def without(self, **options):
        prepare(self, **options)
        self.drop_colours()

    monkeypatch.setattr(Console, "__init__", without)

    async def story(app, pilot, _):
        await every_tab(app, pilot)

    play(story)


def test_colours_are_the_rule():
    async def story(app, pilot, _):
        await settled(pilot, lambda: coloured(app))

    play(story)


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("xterm-256color", (True, True)),
        ("vt100", (True, False)),
        ("dumb", (False, False)),
        ("no-such-terminal", (True, True)),
    ],
)
def test_what_a_terminal_can_do_is_told_by_its_name(term, found):
    ran = subprocess.run(
        [sys.executable, "-c", "from tui.terminal import abilities; print(abilities())"],
        env={**os.environ, "TERM": term},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.strip() == str(found)


def test_a_terminal_that_cannot_place_text_is_told_what_to_do(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "tui", "--data-dir", str(tmp_path / "data")],
        env={**os.environ, "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "this terminal cannot place text (TERM names it)" in ran.stderr
    assert not (tmp_path / "data").exists()
