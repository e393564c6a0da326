"""Models are shown by task, by what fits, by what is here and by their words, all at once."""

import msgspec
import pytest
from textual.widgets import DataTable

from tests.tui.fake import FakeServer, model
from tests.tui.test_stories import cells, drawn, play, settled, text_of
from tui.screens.dialogs import Confirm
from tui.screens.welcome import Welcome

GONE = {"available": False, "reason": "its file is not on this machine", "missing": True}


def filled():
    gateway = FakeServer()
    gateway.cores = 2
    gateway.models = [
        model("here/embeds", loaded=True),
        model("small/embeds", params=30_000_000, **GONE),
        model("huge/embeds", params=7_570_000_000, quantization="Q4_K_M", **GONE),
        model("small/ranks", task="rerank", dimensions=None, params=30_000_000, **GONE),
    ]
    return gateway


def names(app):
    return [row[0] for row in cells(app, "#models")]


async def models(app, pilot):
    await pilot.press("2")
    await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_task_fit_and_place_are_filters_that_add_up(size):
    async def story(app, pilot, _):
        await models(app, pilot)
        assert "4 of 4   k task: any   f fit: any   h here or not   / filters" in drawn(app)
        await pilot.press("k")
        await settled(pilot, lambda: "small/ranks" not in names(app))
        await pilot.press("f")
        await settled(pilot, lambda: names(app) == ["here/embeds", "small/embeds"])
        assert "2 of 4   k task: embeddings   f what fits" in drawn(app)
        await pilot.press("h")
        await settled(pilot, lambda: names(app) == ["here/embeds"])
        await pilot.press("h", "k")
        await settled(pilot, lambda: names(app) == ["small/ranks"])
        await pilot.press("k", "f", "slash", *"huge")
        await settled(pilot, lambda: names(app) == ["huge/embeds"])
        await pilot.press("escape")
        await settled(pilot, lambda: len(names(app)) == 4)

    play(story, filled(), size=size)


def test_why_a_model_is_slow_here_is_said_below_the_table():
    async def story(app, pilot, _):
        await models(app, pilot)
        assert [row[3] for row in cells(app, "#models")][2] == "~ slow"
        await pilot.press("down", "down")
        await settled(
            pilot, lambda: "2 cores and no graphics card" in text_of(app, "#model-detail")
        )

    play(story, filled())


def test_the_first_run_suggests_what_two_cores_compute():
    gateway = filled()
    gateway.keys = []

    async def story(app, pilot, _):
        await settled(pilot, lambda: isinstance(app.screen, Welcome))
        here = text_of(app.screen, "#here")
        assert "small/embeds (embeddings, 60 MB)" in here
        assert "small/ranks (rerank, 60 MB)" in here
        assert "huge" not in here

    play(story, gateway)


def test_weights_that_are_pinned_for_one_model_are_not_unloaded_for_another_unasked():
    gateway = FakeServer()
    shares = model("gigarouter/starter-rerank", task="rerank", dimensions=None, loaded=True)
    gateway.models.insert(1, shares)
    gateway.engines[0] = msgspec.structs.replace(
        gateway.engines[0], pinned=True, also=("gigarouter/starter-rerank",)
    )

    async def story(app, pilot, gateway):
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 5)
        await pilot.press("down", "l")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        assert "all-MiniLM-L6-v2 leaves with it" in " ".join(drawn(app).split())
        await pilot.press("n")
        assert not gateway.sent

    play(story, gateway)


def test_what_is_not_here_is_neither_verified_nor_removed():
    async def story(app, pilot, gateway):
        await models(app, pilot)
        await pilot.press("down", "d", "v")
        await pilot.pause(0.1)
        assert len(app.screen_stack) == 1
        assert not gateway.sent

    play(story, filled())
