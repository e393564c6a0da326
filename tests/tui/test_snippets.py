"""Snippets are whole: no name in them is broken at the smallest terminal, and what is copied runs."""

import ast
import json
import shlex

import pytest

from tests.tui.fake import KEY, FakeServer
from tests.tui.test_stories import drawn, play, settled, text_of
from tui.screens.snippets import snippets
from tui.screens.welcome import Welcome

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
URL = "http://127.0.0.1:8642"
ALL = snippets(URL, KEY, MODEL)
ROOM = 68
"""Cells of a line in a dialog at 80 columns."""


@pytest.mark.parametrize("name", ALL)
def test_no_line_is_wider_than_a_dialog(name):
    assert max(map(len, ALL[name].splitlines())) <= ROOM


@pytest.mark.parametrize("name", ["openai-python", "LangChain"])
def test_a_snippet_of_python_is_python(name):
    assert MODEL in ast.unparse(ast.parse(ALL[name]))


def test_the_snippet_of_curl_is_one_command_with_a_body_of_json():
    words = shlex.split(ALL["curl"])
    assert words[:3] == [f"KEY={KEY}", "curl", f"{URL}/v1/embeddings"]
    assert json.loads(words[words.index("-d") + 1]) == {"model": MODEL, "input": "hello"}
    assert "Authorization: Bearer $KEY" in words


def test_every_snippet_of_the_first_run_is_whole_at_80_columns():
    gateway = FakeServer()
    gateway.keys = []

    async def story(app, pilot, _):
        await settled(pilot, lambda: isinstance(app.screen, Welcome))
        await settled(pilot, lambda: "unlimited" in drawn(app))
        await pilot.press("enter")
        await settled(pilot, lambda: "$0.0" in text_of(app.screen, "#first-call"))
        for number, text in enumerate(ALL.values(), 1):
            await pilot.press(str(number))
            app.screen.query_one("#how").scroll_visible(animate=False)
            await settled(
                pilot, lambda t=text: all(line.strip() in drawn(app) for line in t.splitlines())
            )

    play(story, gateway, size=(80, 24))
