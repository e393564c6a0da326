"""A footer says what a key does to the row that it is on; what destroys asks first."""

import msgspec
import pytest
from textual.widgets import DataTable

from tests.tui.fake import FakeServer, moved
from tests.tui.test_stories import drawn, play, settled
from tui.screens.dialogs import Confirm

NAME = "sentence-transformers/all-MiniLM-L6-v2"


def footer(app):
    return drawn(app).splitlines()[-1]


async def models(app, pilot):
    await pilot.press("2")
    await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_footer_follows_the_row(size):
    async def story(app, pilot, gateway):
        await models(app, pilot)
        await settled(pilot, lambda: "l Unload" in footer(app))
        assert "p Pull" not in footer(app)
        await pilot.press("down")
        await settled(pilot, lambda: "p Pull" in footer(app))
        assert "Load" not in footer(app)
        assert "Unload" not in footer(app)
        assert "t Try" not in footer(app)
        await pilot.press("l", "t")  # what is not offered does nothing
        await pilot.pause(0.1)
        assert not gateway.sent
        assert len(app.screen_stack) == 1
        await pilot.press("p")
        await settled(pilot, lambda: gateway.downloads)
        await settled(pilot, lambda: "c Cancel" in footer(app))
        assert "p Pull" not in footer(app)
        moved(gateway, state="cancelled")
        await settled(pilot, lambda: "p Go on" in footer(app))

    play(story, size=size)


def test_a_model_that_is_here_and_not_loaded_is_loaded():
    gateway = FakeServer()
    gateway.models[0] = msgspec.structs.replace(gateway.models[0], loaded=False)

    async def story(app, pilot, gateway):
        await models(app, pilot)
        await settled(pilot, lambda: "l Load" in footer(app))
        await pilot.press("l")
        await settled(pilot, lambda: gateway.sent)
        assert gateway.sent == [("POST", "/engines/load", {"id": NAME})]

    play(story, gateway)


def test_a_pinned_model_is_unloaded_only_after_a_yes():
    gateway = FakeServer()
    gateway.engines[0] = msgspec.structs.replace(gateway.engines[0], pinned=True)

    async def story(app, pilot, gateway):
        await models(app, pilot)
        await settled(pilot, lambda: "n Unpin" in footer(app))
        await pilot.press("l")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        assert "is pinned" in drawn(app)
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        assert not gateway.sent
        await pilot.press("l")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await settled(pilot, lambda: gateway.sent)
        await pilot.press("n")
        await settled(pilot, lambda: len(gateway.sent) == 2)
        assert gateway.sent == [
            ("POST", "/engines/unload", {"id": NAME}),
            ("POST", "/engines/pin", {"id": NAME, "pinned": False}),
        ]

    play(story, gateway)


def test_a_revoked_key_offers_its_page_alone():
    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        await settled(pilot, lambda: "r Revoke" in footer(app))
        await pilot.press("a")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 3)
        await pilot.press("down", "down")
        await settled(pilot, lambda: "r Revoke" not in footer(app))
        for words in ("Top up", "Rotate"):
            assert words not in footer(app)
        await pilot.press("r", "t", "o")
        assert len(app.screen_stack) == 1

    play(story)
