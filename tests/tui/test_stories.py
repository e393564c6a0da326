"""What a person does in the console, over a gateway in memory, at two sizes of terminal."""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import msgspec
import pytest
from textual.widgets import DataTable, Input, Label, RichLog, Static, TabbedContent

from appliance.client.caller import AsyncCaller
from appliance.wire.additions import AdditionView
from appliance.wire.logs import LogLine
from appliance.wire.stats import Point
from tests.tui.fake import KEY, NASTY, FakeServer, key, moved
from tui import app as module
from tui.app import Console
from tui.screens.dialogs import Confirm, Secret
from tui.screens.form import Form
from tui.screens.trial import Trial
from tui.screens.welcome import Welcome
from tui.widgets.lines import Lines

SIZES = [(80, 24), (160, 48)]


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.05)


@asynccontextmanager
async def console(gateway, size=(100, 32)):
    app = Console(server=None, caller=gateway)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settled(pilot, lambda: "up " in text_of(app.screen_stack[0], "#status"))
        yield app, pilot


async def settled(pilot, condition):
    async with asyncio.timeout(60):
        while not condition():
            await pilot.pause(0.02)


def text_of(screen, selector):
    widget = screen.query_one(selector, Label if selector == "#status" else Static)
    return str(widget.render())


def play(story, gateway=None, size=(100, 32)):
    async def run():
        made = gateway or FakeServer()
        async with console(made, size) as (app, pilot):
            await story(app, pilot, made)

    asyncio.run(run())


def panel(app, name):
    return app.screen_stack[0].query_one(f"#{name}", Lines).text


def drawn(app):
    """What stands on the terminal, line by line."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def cells(app, table):
    found = app.query_one(table, DataTable)
    return [[str(cell) for cell in found.get_row_at(n)] for n in range(found.row_count)]


# -- the first minute ----------------------------------------------------------------------------


def test_a_first_key_that_works_is_two_key_presses_from_launch():
    gateway = FakeServer()
    gateway.keys = []

    async def story(app, pilot, gateway):
        await settled(pilot, lambda: isinstance(app.screen, Welcome))
        here = text_of(app.screen, "#here")
        assert "A processor, 4 cores, 25.0 GB" in here
        assert "sentence-transformers/all-MiniLM-L6-v2: works now" in here
        assert "Qwen/Qwen3-Embedding-0.6B" in here
        assert "the first, me, is unlimited" in here
        await pilot.press("enter")
        await settled(pilot, lambda: "$0.0" in text_of(app.screen, "#first-call"))
        assert text_of(app.screen, "#secret") == KEY
        assert "[+0.6000, +0.8000" in text_of(app.screen, "#first-call")
        how = text_of(app.screen, "#how")
        for client in ("curl", "openai-python", "LangChain", "Open WebUI"):
            assert client in how
        await pilot.press("c")
        assert app.clipboard == KEY
        await pilot.press("3", "s")
        assert app.clipboard.startswith("from langchain_openai")
        await pilot.press("enter")
        await settled(pilot, lambda: not isinstance(app.screen, Welcome))
        assert [sent[1] for sent in gateway.sent] == ["/keys"]

    play(story, gateway)


def test_who_has_keys_is_not_welcomed():
    async def story(app, pilot, _):
        await pilot.pause(0.3)
        assert len(app.screen_stack) == 1

    play(story)


# -- throughput ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_home_shows_what_happens_and_fits(size):
    async def story(app, pilot, gateway):
        await settled(pilot, lambda: "alice" in panel(app, "recent"))
        assert "4.4k" in panel(app, "figures")
        assert "$0.0123" in panel(app, "figures")
        assert "208 MB" in panel(app, "figures")
        rows = panel(app, "recent").splitlines()
        assert rows[0].split() == [
            *["time", "status", "key", "model"],
            *["tier"] * (size[0] > 100),
            "tokens",
            "docs",
            "cost",
            "took",
        ]
        assert "200 ok" in rows[1]
        assert "402 insuffi" in rows[2]
        assert "5.0k" in panel(app, "chart-0").splitlines()[0]
        assert "\u28ff" in panel(app, "chart-0")
        seen = drawn(app)
        for word in ("latency", "models, 1 min", "keys, 1 min", "all-MiniLM", "alice"):
            assert word in seen, seen
        assert ("machine" in seen) == (size[0] >= 120)
        assert ("1.0 GB of 25.0 GB" in seen) == (size[0] >= 120)
        for widget in app.query(Lines):
            if widget.display:
                assert all(len(line) <= widget.size.width for line in widget.text.splitlines())

    play(story, size=size)


def test_the_widest_terminal_shows_refusals_and_three_graphs():
    async def story(app, pilot, _):
        await settled(pilot, lambda: "insufficient_credit" in panel(app, "refusals"))
        assert [p.border_title.partition("/")[0] for p in app.query(".chart").results(Lines)] == [
            "tokens",
            "documents",
            "calls",
        ]
        await pilot.press("g")
        titles = [p.border_title.partition("/")[0] for p in app.query(".chart").results(Lines)]
        assert titles == ["documents", "calls", "refused"]

    play(story, size=(200, 60))


def test_a_terminal_that_changes_its_size_is_drawn_anew():
    async def story(app, pilot, _):
        await settled(pilot, lambda: "alice" in panel(app, "recent"))
        await pilot.resize_terminal(160, 48)
        await settled(pilot, lambda: "workers" in panel(app, "machine"))
        await pilot.press("2")
        await settled(pilot, lambda: "license" in drawn(app))
        await pilot.resize_terminal(80, 24)
        await settled(pilot, lambda: "license" not in drawn(app))
        assert "\u2026/all-MiniLM-L6-v2" in drawn(app)

    play(story)


def test_h_goes_through_the_histories_and_f_shows_refusals_alone():
    async def story(app, pilot, _):
        for wanted in ("15 min", "1 h", "24 h", "30 d", "1 min"):
            await pilot.press("h")
            await settled(pilot, lambda w=wanted: w in app.query_one("#chart-0").border_title)
        assert app._span_s == 60
        await settled(pilot, lambda: "200 ok" in panel(app, "recent"))
        await pilot.press("f")
        await settled(pilot, lambda: "200 ok" not in panel(app, "recent"))
        assert "402" in panel(app, "recent")
        await pilot.press("f")
        await settled(pilot, lambda: "200 ok" in panel(app, "recent"))

    play(story)


def test_documents_alone_are_graphed_without_being_asked_for():
    gateway = FakeServer()
    history = [Point(1, 0, 5.0, 0) for _ in range(60)]
    gateway.stats = msgspec.structs.replace(gateway.stats, history=history)

    async def story(app, pilot, _):
        await settled(pilot, lambda: app.query_one("#chart-0").border_title is not None)
        assert app.query_one("#chart-0").border_title.startswith("documents/s")

    play(story, gateway)


# -- models --------------------------------------------------------------------------------------


def test_a_pull_is_begun_watched_and_cancelled():
    async def story(app, pilot, gateway):
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        states = [row[4] for row in cells(app, "#models")]
        assert [row[3] for row in cells(app, "#models")] == ["\u2713 fits"] * 4
        assert states[0].startswith("\u25cf loaded")
        assert states[1] == "\u2193 can be pulled"
        assert states[3] == "! unusable"
        await pilot.press("down", "p")
        await settled(pilot, lambda: gateway.sent)
        assert gateway.sent == [("POST", "/downloads", {"id": "BAAI/bge-small-en-v1.5"})]
        moved(gateway, bytes=500, rate=50_000.0, eta_s=75)
        await settled(pilot, lambda: "50%" in cells(app, "#models")[1][4])
        assert "1m 15s" in cells(app, "#models")[1][4]
        moved(gateway, state="trying", bytes=1000, rate=0.0, eta_s=None)
        await settled(pilot, lambda: "100% trying" in cells(app, "#models")[1][4])
        await pilot.press("c")
        await settled(pilot, lambda: len(gateway.sent) == 2)
        assert gateway.sent[1][:2] == ("DELETE", "/downloads/dl_1")
        moved(gateway, state="failed", error="the hub answers 503")
        await settled(pilot, lambda: "failed: p goes on" in cells(app, "#models")[1][4])
        await settled(pilot, lambda: "the hub answers 503" in text_of(app, "#model-detail"))

    play(story)


def test_loading_pinning_pricing_adding_and_removing_ask_the_server():
    async def story(app, pilot, gateway):
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        await pilot.press("l")
        await settled(pilot, lambda: len(gateway.sent) == 1)
        await pilot.press("n")
        await settled(pilot, lambda: len(gateway.sent) == 2)
        await pilot.press("v")
        await settled(pilot, lambda: len(gateway.sent) == 3)
        await pilot.press("d")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await settled(pilot, lambda: len(gateway.sent) == 4)
        await pilot.press("e")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#field-price", Input).value = "0.5"
        app.screen.query_one("#field-aliases", Input).value = "mini, team-embed"
        await pilot.press("enter")
        await settled(pilot, lambda: len(gateway.sent) == 6)
        await pilot.press("a")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#field-repo", Input).value = "owner/name:x.gguf"
        await pilot.press("enter")
        await settled(pilot, lambda: len(gateway.sent) == 7)
        name = "sentence-transformers/all-MiniLM-L6-v2"
        assert gateway.sent == [
            ("POST", "/engines/unload", {"id": name}),
            ("POST", "/engines/pin", {"id": name, "pinned": True}),
            ("POST", "/models/verify", {"id": name}),
            ("POST", "/models/remove", {"id": name}),
            ("POST", "/models/price", {"id": name, "realtime": "0.5", "batch": None}),
            ("POST", "/models/alias", {"id": name, "aliases": ["mini", "team-embed"]}),
            (
                "POST",
                "/downloads/catalog",
                {
                    "repo": "owner/name",
                    "file": "x.gguf",
                    "id": None,
                    "task": None,
                    "pooling": None,
                    "replace": False,
                },
            ),
        ]

    play(story)


def test_a_model_that_is_being_added_is_shown_with_its_stage_and_cancelled():
    async def story(app, pilot, gateway):
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        name = "sentence-transformers/all-MiniLM-L6-v2"
        gateway.additions = [
            AdditionView("add_1", name, "/tmp/new.gguf", "copy", 25, 100),
            AdditionView("add_2", f"x/{NASTY}", f"/tmp/{NASTY}", "convert", 50, 100),
        ]
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 5)
        await settled(pilot, lambda: "25% copy" in cells(app, "#models")[0][4])
        assert cells(app, "#models")[0][0].endswith("all-MiniLM-L6-v2")
        await pilot.press(*["down"] * 4)
        row = cells(app, "#models")[4]
        assert "50% convert" in row[4]
        assert "\x1b" not in "".join(row)
        await settled(pilot, lambda: "Being added from /tmp/" in text_of(app, "#model-detail"))
        await pilot.press("p", "l", "d", "enter")  # of a model that is not there yet
        await pilot.press("c")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        assert not gateway.sent
        await pilot.press("y")
        await settled(pilot, lambda: gateway.sent)
        assert gateway.sent == [("DELETE", "/additions/add_2", None)]
        gateway.additions = [AdditionView("add_1", name, "/tmp/new.gguf", "try", 0, 0)]
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        await settled(pilot, lambda: "try" in cells(app, "#models")[0][4])
        gateway.additions = []
        await settled(pilot, lambda: "loaded" in cells(app, "#models")[0][4])

    play(story)


def test_a_repository_is_added_with_what_was_asked_for_and_what_was_assumed_is_said():
    async def story(app, pilot, gateway):
        note = "the file names no pooling: last was taken"
        gateway.models[0] = msgspec.structs.replace(gateway.models[0], notes=(note,))
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        await pilot.press("a")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        for field, value in (("repo", "owner/name"), ("pooling", "cls"), ("replace", "Yes")):
            app.screen.query_one(f"#field-{field}", Input).value = value
        await pilot.press("enter")
        await settled(pilot, lambda: gateway.sent)
        [(_, path, order)] = gateway.sent
        assert (path, order["pooling"], order["replace"]) == ("/downloads/catalog", "cls", True)
        await settled(pilot, lambda: note in [each.message for each in app._notifications])

    play(story)


def test_a_model_is_tried_with_a_key_that_is_revoked_afterwards():
    async def story(app, pilot, gateway):
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        await pilot.press("t")
        await settled(pilot, lambda: isinstance(app.screen, Trial))
        await pilot.press("enter")
        await settled(pilot, lambda: "cosine 1.000" in text_of(app.screen, "#outcome"))
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        assert [sent[1] for sent in gateway.sent] == ["/keys", "/keys/key_console trial/revoke"]

    play(story)


# -- keys ----------------------------------------------------------------------------------------


def test_a_key_is_minted_and_its_secret_is_shown_once():
    async def story(app, pilot, gateway):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        await pilot.press("m")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        for field, value in (("name", "carol"), ("credit", "2"), ("rpm", "30"), ("models", "a, b")):
            app.screen.query_one(f"#field-{field}", Input).value = value
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, Secret))
        assert text_of(app.screen, "#secret") == KEY
        await pilot.press("c")
        assert app.clipboard == KEY
        await pilot.press("2", "s", "escape")
        assert app.clipboard.startswith("from openai import OpenAI")
        assert KEY in app.clipboard
        order = gateway.sent[0][2]
        assert (order["name"], order["credit"], order["rpm"]) == ("carol", "2", 30)
        assert order["models"] == ["a", "b"]
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 3)
        assert KEY not in app.export_screenshot()

    play(story)


def test_topping_up_rotating_and_revoking_with_a_question_before():
    async def story(app, pilot, gateway):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        await pilot.press("t")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#field-credit", Input).value = "7"
        await pilot.press("enter")
        await settled(pilot, lambda: len(gateway.sent) == 1)
        await pilot.press("o")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, Secret))
        await pilot.press("escape", "r")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n", "r")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await settled(pilot, lambda: len(gateway.sent) == 3)
        assert [sent[1] for sent in gateway.sent] == [
            "/keys/key_alice/topup",
            "/keys/key_alice/rotate",
            "/keys/key_alice/revoke",
        ]
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 1)
        assert "1 key   / filters   by age (b)   2 revoked (a)" in drawn(app)
        await pilot.press("a")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 3)
        assert cells(app, "#keys")[0][3] == "revoked"

    play(story)


def test_a_keys_page_shows_what_it_did():
    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        await pilot.press("enter")
        await settled(pilot, lambda: "last calls" in drawn(app))
        seen = drawn(app)
        for words in ("Key alice", "the last 14 days", "by model", "2026-11-25"):
            assert words in seen, seen
        await pilot.press("end")
        await settled(pilot, lambda: "66.3 ms" in drawn(app))
        assert " 200 " in drawn(app)
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)

    play(story)


def test_a_models_page_shows_what_it_did_and_for_whom():
    async def story(app, pilot, _):
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        await pilot.press("enter")
        await settled(pilot, lambda: "no calls lately" in drawn(app))
        seen = drawn(app)
        for words in (
            "Model sentence-transformers/",
            "$0.004 in a batch",
            "208 MB",
            "by key",
            "0.01",
        ):
            assert words in seen, seen
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)

    play(story, size=(100, 48))


# -- log and doctor ------------------------------------------------------------------------------


def test_the_log_is_filtered_by_words_and_by_level_and_grows():
    async def story(app, pilot, gateway):
        def lines():
            return [line.text.rstrip() for line in app.query_one("#log", RichLog).lines]

        await pilot.press("5")
        await settled(pilot, lambda: len(lines()) == 4)
        assert lines()[0] == "08:59:59 info     listening"
        assert lines()[3] == "Traceback"
        await pilot.press("l")
        await settled(pilot, lambda: len(lines()) == 3)
        await pilot.press("l")
        await settled(pilot, lambda: len(lines()) == 2)
        await pilot.press("l")
        await settled(pilot, lambda: len(lines()) == 4)
        await pilot.press("slash", *"LISTEN", "enter")
        await settled(pilot, lambda: len(lines()) == 1)
        new = LogLine(4, "2026-11-25T09:00:03Z", "info", "x", "listening again")
        gateway.lines.append(new)
        await settled(pilot, lambda: len(lines()) == 2)
        # A server that began again counts from 1 again, and may be further than the first was.
        gateway.run = "second"
        anew = [
            LogLine(n, "2026-11-25T09:00:04Z", "info", "x", f"listening {n}") for n in range(1, 8)
        ]
        gateway.lines[:] = anew
        await settled(
            pilot, lambda: lines() == [f"09:00:04 info     listening {n}" for n in range(1, 8)]
        )

    play(story)


def test_the_doctor_says_what_is_wrong_first_and_what_to_do():
    async def story(app, pilot, _):
        await pilot.press("5")
        await settled(pilot, lambda: "files" in text_of(app, "#checks"))
        said = text_of(app, "#checks").splitlines()
        assert [line[0] for line in said] == ["!", "\u2717", "\u2713"]
        assert said[1].endswith("0.1 GB are free on the disk  \u2192 free some")
        await pilot.press("c")
        await settled(pilot, lambda: "files" in text_of(app, "#checks"))

    play(story)


# -- craft ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_names_from_elsewhere_can_do_nothing_to_the_screen(size):
    async def story(app, pilot, _):
        for number in "12345":
            await pilot.press(number)
            await pilot.pause(0.3)
            drawn = app.export_screenshot()
            for letter in "\x1b\u202e\u0007":
                assert letter not in drawn
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 2)
        await pilot.press("a")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 3)
        assert "[red]e" in cells(app, "#keys")[2][0]
        assert NASTY not in cells(app, "#keys")[2][0]

    play(story, size=size)


def test_a_server_that_is_lost_is_said_and_found_again():
    async def story(app, pilot, gateway):
        gateway.lost = True
        await settled(pilot, lambda: "does not answer" in text_of(app, "#status"))
        assert app.query_one("#status").has_class("lost")
        await pilot.press("2", "p")
        await pilot.pause(0.2)
        gateway.lost = False
        await settled(pilot, lambda: "up 1h 1m" in text_of(app, "#status"))
        assert not app.query_one("#status").has_class("lost")

    play(story)


def test_a_refusal_is_a_message_and_nothing_breaks():
    async def story(app, pilot, gateway):
        gateway.refusal = "this store holds [bold]10 keys at most"
        await pilot.press("2")
        await settled(pilot, lambda: app.query_one("#models", DataTable).row_count == 4)
        await pilot.press("down", "p")
        await settled(pilot, lambda: len(app._notifications) > 0)
        assert "10 keys at most" in next(iter(app._notifications)).message

    play(story)


def test_every_tab_is_a_number_and_help_lists_the_keys():
    async def story(app, pilot, _):
        for number, name in enumerate(module.TABS, 1):
            await pilot.press(str(number))
            await settled(pilot, lambda n=name: app.query_one(TabbedContent).active == f"tab-{n}")
        await pilot.press("3", "question_mark")
        await settled(pilot, lambda: len(app.screen.query("HelpPanel")) == 1)
        await pilot.press("question_mark")
        await settled(pilot, lambda: len(app.screen.query("HelpPanel")) == 0)

    play(story)


@pytest.mark.parametrize("theme", ["textual-light", "textual-dark", "high-contrast"])
def test_each_theme_draws(theme):
    async def story(app, pilot, _):
        app.theme = theme
        await pilot.pause(0.1)
        assert "tokens/s" in app.export_screenshot()

    play(story)


def test_a_name_that_spells_markup_is_said_as_it_is():
    gateway = FakeServer()
    gateway.keys = [key("a[/b]", id="key_1")]

    async def story(app, pilot, gateway):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count == 1)
        await pilot.press("r")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await settled(pilot, lambda: "a[/b] is revoked" in drawn(app))

    play(story, gateway)


def test_a_server_of_another_version_is_said(tmp_path):
    answer = httpx2.Response(200, content=b'{"now": "x"}')
    gateway = AsyncCaller("http://127.0.0.1:1", "token")
    gateway._http = httpx2.AsyncClient(
        base_url="http://127.0.0.1:1", transport=httpx2.MockTransport(lambda _: answer)
    )

    async def story():
        app = Console(server=None, caller=gateway)
        async with app.run_test() as pilot:
            await settled(pilot, lambda: "another version" in text_of(app, "#status"))
            await pilot.pause(0.2)

    asyncio.run(story())
