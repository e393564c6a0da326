"""Every tab as a picture, at the smallest and at a large size: nothing moves unless somebody looks.

    UPDATE_SNAPSHOTS=1 .venv/bin/python -m pytest tests/tui/test_snapshots.py

draws them anew; look at them before you keep them. With another Textual than the one that drew
them, words and places are compared alone: colours and frames are its own.
"""

import asyncio
import html
import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.tui.fake import FakeServer
from tests.tui.test_stories import settled, text_of
from tui import app as module
from tui.app import TABS, Console

FOLDER = Path(__file__).parent / "snapshots"
SIZES = {"80x24": (80, 24), "160x48": (160, 48)}
UNIQUE = re.compile(r"terminal-\d+-")
WORDS = re.compile(r'<text class="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>')


async def picture(name, size):
    gateway = FakeServer()
    if name == "welcome":
        gateway.keys = []
    app = Console(server=None, caller=gateway)
    app.animation_level = "none"
    async with app.run_test(size=size) as pilot:
        await settled(pilot, lambda: "up " in text_of(app.screen_stack[0], "#status"))
        if name == "welcome":
            await settled(pilot, lambda: len(app.screen_stack) == 2)
        else:
            await pilot.press(str(TABS.index(name) + 1))
        # A few looks at the server, so that everything that a tab asks for is there.
        await pilot.pause(0.4)
        drawn = UNIQUE.sub("terminal-", app.export_screenshot(title="gigarouter"))
    return f"<!-- textual {version('textual')} -->\n{drawn}"


def words(svg):
    """Every piece of text, where it stands."""
    return [(x, y, html.unescape(text).strip("\xa0 ")) for x, y, text in WORDS.findall(svg)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*TABS, "welcome"])
def test_a_screen_looks_as_it_did_when_somebody_looked(name, size, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.05)
    now = asyncio.run(picture(name, SIZES[size]))
    kept = FOLDER / f"{name}-{size}.svg"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        kept.write_text(now)
    then = kept.read_text()
    (tmp_path / kept.name).write_text(now)
    where = f"it is now: {tmp_path / kept.name}"
    assert words(now), where
    assert words(now) == words(then), where
    if now.partition("\n")[0] == then.partition("\n")[0]:
        assert now == then, where
