"""The words that people read are plain ones, money has its sign, and help begins with our keys."""

import ast
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from textual.widgets import DataTable

from appliance.wire.models import TuningView
from tests.server import ROOT
from tests.tui.fake import FakeServer, key
from tests.tui.test_stories import drawn, panel, play, settled
from tui.screens.model import subject_of

FOLDERS = ("tui", "appliance/cli")
UNPLAIN = ("plaintext", "\u00b5", "is free", "are free", "credential", " x threads", "swaps")
TOKYO = "\u6771\u4eac\u30c1\u30fc\u30e0"


def literals(path):
    """Every text of a module that is no docstring."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


@pytest.mark.parametrize(
    "path", sorted(p for f in FOLDERS for p in (ROOT / f).rglob("*.py")), ids=lambda p: p.name
)
def test_no_word_is_shown_that_only_its_author_knows(path):
    assert Path(path).is_file()
    assert [(text, word) for text in literals(path) for word in UNPLAIN if word in text] == []


def test_money_is_in_dollars_wherever_it_is_shown():
    async def story(app, pilot, _):
        await settled(pilot, lambda: "alice" in panel(app, "recent"))
        assert "$0.00000185" in panel(app, "recent")
        assert "$0.0123" in panel(app, "figures")
        await pilot.press("2")
        await settled(pilot, lambda: "$0.008/1M tokens" in drawn(app))
        assert "$0.008 for 1M tokens" in drawn(app)
        await pilot.press("3")
        await settled(pilot, lambda: "$5.00" in drawn(app))
        await pilot.press("enter")
        await settled(pilot, lambda: "$0.01 of $5.01 granted" in drawn(app))

    play(story, size=(120, 40))


def test_what_a_models_workers_are_is_said_in_words():
    view = msgspec.structs.replace(
        FakeServer().models[0], tuning=TuningView(2, 1, 2, 2048, None, "calibrated")
    )
    facts = dict(subject_of(view, None).facts)
    assert facts["workers"] == "2 workers with 1 thread each, batches of up to 2,048 tokens"


def test_help_begins_with_the_keys_of_the_console_and_not_with_those_of_a_table():
    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        nodes = [type(each.node).__module__ for each in app.screen.active_bindings.values()]
        own = [name.startswith("tui.") for name in nodes]
        assert own == sorted(own, reverse=True)
        assert any(own)
        assert not all(own)
        assert list(app.screen.active_bindings).index("m") < 4

    play(story)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_names_of_wide_characters_keep_every_column(size):
    gateway = FakeServer()
    gateway.keys = [key("alice"), key(TOKYO), key(TOKYO * 5)]
    activity = [msgspec.structs.replace(gateway.stats.keys[0], name=name) for name in ("al", TOKYO)]
    recent = [msgspec.structs.replace(gateway.stats.recent[0], key=n) for n in ("alice", TOKYO)]
    gateway.stats = msgspec.structs.replace(gateway.stats, keys=activity, recent=recent)

    def column(lines, text):
        """The cell at which a text begins in each line that has it."""
        return {cell_len(line[: line.index(text)]) for line in lines if text in line}

    async def story(app, pilot, _):
        await settled(pilot, lambda: TOKYO[:2] in panel(app, "recent"))
        assert len(column(panel(app, "recent").splitlines(), "$0.00000185")) == 1
        assert len(column(panel(app, "by-key").splitlines()[1:3], "9.0k")) == 1
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 3)
        assert len(column(drawn(app).splitlines(), "live")) == 1

    play(story, gateway, size=size)
