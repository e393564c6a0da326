"""The palette has every action of every tab, every model and every key, and does what a key does."""

import asyncio

import pytest
from textual.command import CommandPalette
from textual.widgets import DataTable, Input, TabbedContent

from tests.tui.fake import FakeServer, key
from tests.tui.test_stories import drawn, play, settled
from tui.palette import Commands, bindings_of
from tui.screens.dialogs import Confirm
from tui.screens.form import Form
from tui.tabs import TABS


async def offered(app, query=""):
    """Title and help of what the console's own commands offer."""
    commands = Commands(app.screen)
    commands._post_init()
    hits = commands._search(query)
    return {str(hit.text or hit.match_display): hit async for hit in hits}


async def chosen(app, pilot, query, title):
    """Type into the palette until a command is there, and choose it."""
    await pilot.press("ctrl+p")
    await settled(pilot, lambda: isinstance(app.screen, CommandPalette))
    app.screen.query_one(Input).value = query
    await settled(pilot, lambda: title in drawn(app))
    await pilot.pause(0.1)
    await pilot.press("enter")
    await settled(pilot, lambda: not isinstance(app.screen, CommandPalette))


def test_every_action_of_every_tab_is_a_command_with_its_key():
    async def story(app, pilot, _):
        found = await offered(app)
        for tab in TABS:
            content = app.screen_stack[0].query_one(tab.kind)
            assert f"{tab.title}: open" in found
            for binding in bindings_of(content):
                named = [t for t in found if t.startswith(f"{tab.title}: {binding.description}")]
                assert named, (tab.title, binding.description)
                assert any(binding.key.replace("slash", "/") in found[t].help for t in named)

    play(story)


def test_every_model_and_every_live_key_is_a_command_before_its_tab_was_opened():
    async def story(app, pilot, gateway):
        found = await offered(app)
        for model in gateway.models[:3]:
            assert f"Model {model.id}" in found
        assert "Key alice" in found
        assert "Key bob" in found
        assert not [title for title in found if "evil" in title and title.startswith("Key")]
        mini = "sentence-transformers/all-MiniLM-L6-v2"
        assert f"Unload {mini}" in await offered(app, "unload mini")
        assert f"Load {mini}" not in await offered(app, "load mini")  # it is loaded
        assert f"Models: Unload {mini}" in await offered(app)
        gateway.lost = True  # what needs no names is offered all the same
        assert "Keys: Mint" in await offered(app)

    play(story)


def test_a_key_is_found_by_name_and_its_row_is_under_the_cursor():
    gateway = FakeServer()
    gateway.keys += [key(f"team-{n}") for n in range(30)]

    async def story(app, pilot, _):
        await chosen(app, pilot, "key team-23", "Key team-23")
        table = app.query_one("#keys", DataTable)
        await settled(pilot, lambda: app.query_one(TabbedContent).active == "tab-keys")
        await settled(
            pilot,
            lambda: table.row_count and str(table.get_row_at(table.cursor_row)[0]) == "team-23",
        )

    play(story, gateway)


def test_what_a_command_does_with_a_key_still_asks_first():
    async def story(app, pilot, gateway):
        await chosen(app, pilot, "revoke alice", "Revoke alice")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        assert "Revoke alice?" in drawn(app)
        await pilot.press("n")
        assert not gateway.sent
        await chosen(app, pilot, "keys mint", "Keys: Mint")
        await settled(pilot, lambda: isinstance(app.screen, Form))

    play(story)


def test_what_cannot_be_done_now_is_said():
    async def story(app, pilot, gateway):
        await chosen(app, pilot, "models pull", "Models: Pull")
        await settled(pilot, lambda: "Pull does nothing here now; its key is p" in said(app))
        assert not gateway.sent

    play(story)


def said(app):
    return " ".join(each.message for each in app._notifications)


@pytest.mark.parametrize("title", ["Theme", "Screenshot", "Help", "Quit"])
def test_what_any_application_has_is_there_too(title):
    async def story(app, pilot, _):
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert titles.count(title) == 1
        assert "Keys" not in titles

    play(story)


def test_a_dialog_is_answered_before_anything_else_is_offered():
    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        await pilot.press("m")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        assert await offered(app) == {}

    play(story)


def test_commands_are_those_of_the_tabs_today():
    assert [tab.title for tab in TABS] == ["Throughput", "Models", "Keys", "LAN", "Log"]
    assert asyncio.iscoroutinefunction(Commands._do)
