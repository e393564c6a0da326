"""Figures in the console: units apart, one meaning for each, and histories that go back."""

from decimal import Decimal

import msgspec
import pytest

from appliance.wire.stats import Activity, CallView, Point
from appliance.wire.usage import UsageReport, UsageRow
from tests.tui.fake import FakeServer
from tests.tui.test_stories import drawn, panel, play, settled, text_of
from tui.screens.meanings import Meanings
from tui.screens.page import Page

SIZES = [(80, 24), (120, 40)]
EMBED = "sentence-transformers/all-MiniLM-L6-v2"


def busy():
    """An embedder and a reranker; of each a call that was refused for want of credit."""
    gateway = FakeServer()
    at = "2026-11-25T09:59:59Z"
    gateway.stats = msgspec.structs.replace(
        gateway.stats,
        models=[Activity(EMBED, 90, 9_000, 0, 1), Activity("x/ranks", 40, 7_000, 800, 2, 5)],
        keys=[Activity("alice", 130, 16_000, 800, 3, 5)],
        recent=[
            CallView(at, 200, "", "alice", "x/ranks", "realtime", 700, "0.00001", 9.0, "r", 80),
            CallView(at, 402, "insufficient_credit", "alice", EMBED, "", 0, "0", 0.4, "r2"),
        ],
    )
    return gateway


@pytest.mark.parametrize("size", SIZES)
def test_tokens_and_documents_are_never_added_up(size):
    async def story(app, pilot, gateway):
        await settled(pilot, lambda: "ranks" in panel(app, "by-model"))
        for name in ("by-model", "by-key", "recent"):
            assert "units" not in panel(app, name)
        head, _, ranks = panel(app, "by-model").splitlines()
        has_room = "docs" in head
        shown = ["40", "7.0k", *["800"] * has_room, "2"]
        assert ranks.split()[1:] == shown
        head, row, refused = panel(app, "recent").splitlines()
        assert [word for word in head.split() if word in ("tokens", "docs")] == ["tokens", "docs"]
        assert row.split()[-6:-4] == ["700", "80"] or "700" in row.split()
        assert "80" in row.split()
        assert "all-MiniLM-L6-v2"[:9] in refused
        assert "7.8k" not in drawn(app)

    play(story, busy(), size)


def test_the_widest_panels_have_columns_for_both():
    async def story(app, pilot, gateway):
        await settled(pilot, lambda: "ranks" in panel(app, "by-model"))
        head, _, ranks = panel(app, "by-model").splitlines()
        assert head.split()[1:4] == ["calls", "tokens", "docs"]
        assert ranks.split()[1:] == ["40", "7.0k", "800", "2"]

    play(story, busy(), (200, 60))


def test_a_page_shows_what_was_sold_in_tokens_and_in_documents():
    gateway = busy()
    row = UsageRow("2026-11-25", None, 3, 1_500, 40, Decimal("0.01"), 0, Decimal(0))
    answer = gateway.answer

    def sold(path, names, kind, order):
        if kind is UsageReport:
            return UsageReport("day", "2026-11-11", None, None, [row], row)
        return answer(path, names, kind, order)

    gateway.answer = sold

    async def story(app, pilot, _):
        await pilot.press("2")
        await settled(pilot, lambda: "all-MiniLM" in drawn(app))
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, Page))
        await settled(pilot, lambda: "1.5k" in drawn(app))
        line = next(each for each in drawn(app).splitlines() if "2026-11-25" in each)
        words = line.split()
        assert words[words.index("1.5k") + 1] == "40"
        assert "tokens/s, 24 h, highest minute 777" in drawn(app)
        assert "units" not in drawn(app)

    play(story, gateway)


@pytest.mark.parametrize("size", SIZES)
def test_i_says_what_each_figure_counts_and_help_says_that_i_does(size):
    async def story(app, pilot, _):
        await settled(pilot, lambda: "alice" in panel(app, "recent"))
        await pilot.press("question_mark")
        await settled(pilot, lambda: "i says what each" in " ".join(drawn(app).split()))
        await pilot.press("question_mark", "i")
        await settled(pilot, lambda: isinstance(app.screen, Meanings))
        await settled(pilot, lambda: "refunds" in drawn(app))
        seen = drawn(app)
        for word in ("calls", "tokens", "docs", "refused", "free", "highest", "answered and"):
            assert word in seen
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)

    play(story, size=size)


def test_a_limit_of_requests_is_used_up_by_refusals_too():
    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: "alice" in drawn(app))
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, Page))
        await settled(pilot, lambda: "138 of 60 in the last minute" in drawn(app))

    play(story, busy())


# -- histories -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_day_shows_its_highest_minute_and_the_hour_that_runs(size):
    gateway = FakeServer()
    hours = [Point(0, 0, 0, 0)] * 24 + [Point(1, 40.0, 0, 0)]
    gateway.stats = msgspec.structs.replace(
        gateway.stats, history=hours, step_s=3600, highest=Point(5, 321.0, 0, 0)
    )

    async def story(app, pilot, _):
        await pilot.press("h", "h", "h")
        await settled(pilot, lambda: "24 h" in app.query_one("#chart-0").border_title)
        assert app.query_one("#chart-0").border_title == "tokens/s, 24 h, highest minute 321"
        assert "\u28ff" in panel(app, "chart-0")
        await pilot.press("h")
        await settled(pilot, lambda: "30 d" in app.query_one("#chart-0").border_title)

    play(story, gateway, size)


@pytest.mark.parametrize(
    ("has_keys", "said"),
    [(True, "none since the server started, 1h 1m ago"), (False, "a key and a call away")],
)
def test_no_calls_yet_is_said_differently_where_there_are_keys(has_keys, said):
    gateway = FakeServer()
    gateway.stats = msgspec.structs.replace(gateway.stats, recent=[], has_keys=has_keys)

    async def story(app, pilot, _):
        await settled(pilot, lambda: said in panel(app, "recent"))
        assert ("away" in panel(app, "recent")) is not has_keys

    play(story, gateway)


def test_free_answers_have_a_graph_of_their_own():
    async def story(app, pilot, _):
        await pilot.press("g", "g", "g", "g")
        await settled(pilot, lambda: app.query_one("#chart-0").border_title.startswith("free/s"))
        assert "up " in text_of(app.screen_stack[0], "#status")

    play(story)
