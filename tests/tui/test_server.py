"""The console and the server behind it: one that hangs, dies, is a stranger's, or answers nonsense."""

import asyncio
import json
import os
import signal
import subprocess
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from textual.widgets import Button, Input, Static

from appliance.client import verbs
from appliance.client.caller import AsyncCaller
from appliance.client.local_server import LocalServer
from tests.cli.test_cli import gigarouter
from tests.client.test_caller import answering, http
from tests.server import Server, free_port
from tests.tui.fake import FakeServer, key, model
from tests.tui.test_stories import drawn, settled, text_of
from tui import app as module
from tui import figures
from tui.app import Console
from tui.screens.dialogs import Choice, Confirm
from tui.screens.ended import Ended
from tui.screens.form import Form
from tui.screens.trial import Trial


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.05)


@pytest.fixture
def quick_polls(monkeypatch):
    """Verbs that are asked again and again give up soon."""
    for name in (
        "STATS",
        "LIST_KEYS",
        "LIST_MODELS",
        "LIST_DOWNLOADS",
        "LIST_ADDITIONS",
        "LIST_ENGINES",
        "LOG",
    ):
        verb = getattr(verbs, name)
        shorter = type(verb)(
            verb.method, verb.path, verb.answer, verb.order, verb.query, deadline_s=0.5
        )
        monkeypatch.setattr(verbs, name, shorter)


@pytest.fixture
def stranger():
    process = subprocess.Popen(["sleep", "120"])
    yield process
    process.kill()
    process.wait(10)


@pytest.fixture
def fake_server(tmp_path):
    """A server that somebody else started, with a key in it."""
    server = Server(tmp_path / "data").start("--fake")
    server.mint()
    yield server
    server.close()


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """Where a console starts a server of its own, with a fake engine and a key."""
    monkeypatch.setenv("GIGAROUTER_FAKE_ENGINE", "true")
    folder = tmp_path / "data"
    assert gigarouter("keys", "mint", "a", data_dir=folder).returncode == 0
    (folder / "config.toml").write_text(f"port = {free_port()}\n")
    return folder


@asynccontextmanager
async def console(server=None, caller=None):
    app = Console(server=server, caller=caller)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        yield app, pilot


def status(app):
    return text_of(app.screen_stack[0], "#status")


async def up(app, pilot):
    await settled(pilot, lambda: "up " in status(app))


def banner(app):
    ended = app.screen_stack[0].query_one(Ended)
    return str(ended.render()) if ended.display else ""


def said(app):
    return " ".join(each.message for each in app._notifications)


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [http(200, b"<html>hello</html>"), http(200, b"[1]"), http(502, b"\xff"), b"SSH-2.0-x\r\n"],
    ids=["html", "a list", "no text", "no http"],
)
def test_an_answer_that_is_not_ours_is_said_and_breaks_no_tab(raw):
    async def story():
        with answering(raw) as url:
            async with console(caller=AsyncCaller(url, "token")) as (app, pilot):
                for number in range(1, 6):
                    await pilot.press(str(number))
                    await pilot.pause(0.1)
                await settled(pilot, lambda: app.query_one("#status").has_class("lost"))
                assert app._exception is None

    asyncio.run(story())


class Unwell(FakeServer):
    """Answers the operator, and gives paid calls what an address gives them."""

    def __init__(self, url):
        super().__init__()
        self._paid_calls = AsyncCaller(url, "token")

    async def embed(self, *arguments):
        return await self._paid_calls.embed(*arguments)

    async def close(self):
        await self._paid_calls.close()


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"data": []}', b'{"data": [{"embedding": "x"}]}', b"null"]
)
def test_a_trial_whose_answer_is_not_ours_says_so(body):
    async def story():
        with answering(http(200, body)) as url:
            async with console(caller=Unwell(url)) as (app, pilot):
                await up(app, pilot)
                await pilot.press("2")
                await settled(pilot, lambda: app.query_one("#models").row_count == 4)
                await pilot.press("t")
                await settled(pilot, lambda: isinstance(app.screen, Trial))
                await pilot.press("enter")
                await settled(
                    pilot,
                    lambda: (
                        "the server answered"
                        in str(app.screen.query_one("#outcome", Static).render())
                    ),
                )

    asyncio.run(story())


@pytest.mark.parametrize(
    ("tab", "change"),
    [
        ("3", lambda server: server.keys.append(key("odd", credit=Decimal("NaN")))),
        ("2", lambda server: server.models.append(model("odd", params=10**400))),
    ],
    ids=["no amount", "a number beyond all"],
)
def test_an_answer_without_sense_is_said_and_the_console_goes_on(tab, change):
    async def story():
        server = FakeServer()
        async with console(caller=server) as (app, pilot):
            await up(app, pilot)
            change(server)
            await pilot.press(tab)
            await settled(pilot, lambda: "cannot be shown" in status(app))
            server.keys.pop()
            server.models[:] = [each for each in server.models if each.id != "odd"]
            await up(app, pilot)

    asyncio.run(story())


@pytest.mark.parametrize("amount", ["x", "NaN", "Infinity", ""])
def test_an_amount_that_is_none_is_drawn_as_a_question_mark(amount):
    assert figures.money(amount) == "?"


# -- hanging -------------------------------------------------------------------------------------


def test_a_server_that_hangs_is_said_to_hang_and_found_again_and_polls_do_not_pile_up(
    quick_polls, fake_server
):
    async def story():
        async with console(LocalServer(fake_server.data_dir)) as (app, pilot):
            await up(app, pilot)
            asked = []
            send = app.client._caller._send

            async def counted(*arguments):
                asked.append(1)
                try:
                    return await send(*arguments)
                finally:
                    asked.pop()

            app.client._caller._send = counted
            fake_server.process.send_signal(signal.SIGSTOP)
            try:
                await settled(pilot, lambda: "hangs" in status(app))
                assert app.query_one("#status").has_class("lost")
                for _ in range(10):
                    await pilot.press("1")
                    await pilot.pause(0.05)
                    assert len(asked) <= 1
            finally:
                fake_server.process.send_signal(signal.SIGCONT)
            await up(app, pilot)

    asyncio.run(story())


# -- whose server --------------------------------------------------------------------------------


def test_a_strangers_pid_in_the_notes_survives_everything_the_console_does(data_dir, stranger):
    note = {"url": "http://127.0.0.1:1", "pid": stranger.pid, "started": ""}
    (data_dir / "server.json").write_text(json.dumps(note))
    (data_dir / "lock").write_text(f"{stranger.pid}\n")

    async def story():
        server = LocalServer(data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)  # it took the note for none, and started a server
            assert server.started is not None
            (data_dir / "server.json").write_text(json.dumps(note))
            first = server.started
            app.address_changed()
            await settled(pilot, lambda: first.returncode == 0 and server.note() is not None)
            await up(app, pilot)
            await pilot.press("q")
            await settled(pilot, lambda: isinstance(app.screen, Choice))
            await pilot.press("s")
            await settled(pilot, lambda: not app.is_running)
        assert stranger.poll() is None
        assert server.started.returncode == 0

    asyncio.run(story())


def test_a_server_of_somebody_else_is_restarted_only_after_a_yes_that_names_it(
    fake_server, monkeypatch
):
    monkeypatch.setenv("GIGAROUTER_FAKE_ENGINE", "true")
    pid = fake_server.process.pid

    async def story():
        server = LocalServer(fake_server.data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            await pilot.press("4")
            await pilot.pause(0.3)
            await pilot.press("o")
            await settled(pilot, lambda: isinstance(app.screen, Form))
            # The port in use; the address is the one to open, for it is on loopback now.
            assert app.screen.query_one("#field-port", Input).value == str(fake_server.port)
            assert app.screen.query_one("#field-host", Input).value == "0.0.0.0"
            app.screen.query_one("#field-host", Input).value = "127.0.0.1"
            app.screen.query_one("#field-tls", Input).value = "none"
            await pilot.press("enter")
            await settled(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")  # without TLS
            await settled(pilot, lambda: "did not start the server" in question(app))
            assert f"process {pid} (" in question(app)
            assert "appliance serve" in question(app)
            await pilot.press("n")
            await settled(pilot, lambda: "follows them when it starts again" in said(app))
            assert fake_server.process.poll() is None
            app.address_changed()
            await settled(pilot, lambda: "did not start the server" in question(app))
            await pilot.press("y")
            await settled(pilot, lambda: fake_server.process.poll() == 0)
            await settled(pilot, lambda: server.is_ours() and server.note() is not None)
            await up(app, pilot)
        await server.stop()

    asyncio.run(story())


def question(app):
    if not isinstance(app.screen, Confirm):
        return ""
    return str(app.screen.query_one(Static).render())


def test_a_server_of_somebody_else_is_not_offered_to_be_stopped(fake_server):
    async def story():
        async with console(LocalServer(fake_server.data_dir)) as (app, pilot):
            await up(app, pilot)
            await pilot.press("q")
            await settled(pilot, lambda: not app.is_running)

    asyncio.run(story())
    assert fake_server.process.poll() is None


def test_a_killed_child_is_reaped_and_said(data_dir):
    async def story():
        server = LocalServer(data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            pid = server.note().pid
            os.kill(pid, signal.SIGKILL)
            await settled(pilot, lambda: "was ended by SIGKILL" in banner(app))
            assert f"process {pid}" in banner(app)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            await settled(pilot, lambda: app.query_one("#status").has_class("lost"))
            await pilot.press("q")  # nothing is left to be stopped
            await settled(pilot, lambda: not app.is_running)

    asyncio.run(story())


def test_a_server_that_does_not_stop_is_said_and_the_console_asks(data_dir, monkeypatch):
    monkeypatch.setattr("appliance.client.local_server.STOP_S", 0.5)

    async def story():
        server = LocalServer(data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            server.started.send_signal(signal.SIGSTOP)
            await pilot.press("q")
            await settled(pilot, lambda: isinstance(app.screen, Choice))
            await pilot.press("s")
            await settled(pilot, lambda: "still runs" in question(app))
            assert f"kill -9 {server.started.pid}" in question(app)
            await pilot.press("y")
            await settled(pilot, lambda: not app.is_running)
        server.started.kill()
        server.started.wait(10)

    asyncio.run(story())


# -- leaving -------------------------------------------------------------------------------------


def test_esc_at_the_end_is_nothing_and_enter_leaves_the_server_running(data_dir):
    async def story():
        server = LocalServer(data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            await pilot.press("q")
            await settled(pilot, lambda: isinstance(app.screen, Choice))
            labels = [str(button.label) for button in app.screen.query(Button)]
            assert labels == ["Leave it running (l)", "Stop it (s)", "Cancel (esc)"]
            await pilot.press("escape")
            await settled(pilot, lambda: len(app.screen_stack) == 1)
            await pilot.pause(0.2)
            assert app.is_running
            assert server.started.poll() is None
            await pilot.press("q")
            await settled(pilot, lambda: isinstance(app.screen, Choice))
            await pilot.press("enter")
            await settled(pilot, lambda: not app.is_running)
        assert server.started.poll() is None
        assert server.note() is not None
        await server.stop()

    asyncio.run(story())


def test_ctrl_c_names_the_key_of_the_footer_and_the_other_way_to_quit_asks_too(data_dir):
    async def story():
        server = LocalServer(data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            await pilot.press("ctrl+c")
            await settled(pilot, lambda: "q quits" in said(app))
            assert "[" not in said(app)
            assert "ctrl" not in said(app).lower()
            await pilot.press("ctrl+q")
            await settled(pilot, lambda: isinstance(app.screen, Choice))
            await pilot.press("s")
            await settled(pilot, lambda: not app.is_running)
        assert server.started.returncode == 0

    asyncio.run(story())


# -- death ---------------------------------------------------------------------------------------


def test_a_server_that_was_killed_is_said_with_its_last_words_and_s_starts_one(data_dir):
    async def story():
        server = LocalServer(data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            await pilot.press("5")
            await settled(pilot, lambda: "\u2713" in str(app.query_one("#checks").render()))
            await pilot.press("s")  # of no use while one runs
            first = server.started
            assert not app._is_dead
            os.kill(first.pid, signal.SIGKILL)  # its server ends with it
            await settled(pilot, lambda: "no server runs: s starts one" in status(app))
            await settled(pilot, lambda: "what you see is 1s old" in status(app))
            await settled(
                pilot, lambda: f"process {first.pid}) was ended by SIGKILL" in banner(app)
            )
            assert "The last lines of its log:" in banner(app)
            assert server.tail()[-1][:60] in banner(app)
            assert "\u2713" not in str(app.query_one("#checks").render())
            assert "Start the server" in drawn(app)
            assert app.query_one("#tabs").has_class("stale")
            await pilot.press("s")
            await up(app, pilot)
            assert banner(app) == ""
            assert not app.query_one("#tabs").has_class("stale")
            assert server.started.pid != first.pid
            await settled(pilot, lambda: "\u2713" in str(app.query_one("#checks").render()))
            assert "Start the server" not in drawn(app)
        await server.stop()

    asyncio.run(story())


def test_a_strangers_server_that_was_killed_is_said_and_can_be_started_here(
    fake_server, monkeypatch
):
    monkeypatch.setenv("GIGAROUTER_FAKE_ENGINE", "true")

    async def story():
        server = LocalServer(fake_server.data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            fake_server.process.kill()
            fake_server.process.wait(10)
            await settled(pilot, lambda: "is gone: no process is left" in banner(app))
            await pilot.press("s")
            await up(app, pilot)
            assert server.is_ours()
        await server.stop()

    asyncio.run(story())


def test_a_server_that_another_one_replaced_is_not_offered_to_be_stopped(data_dir):
    async def story():
        server, other = LocalServer(data_dir), LocalServer(data_dir)
        async with console(server) as (app, pilot):
            await up(app, pilot)
            os.kill(server.started.pid, signal.SIGKILL)
            await settled(pilot, lambda: app._is_dead)
            await other.start()  # by hand, from somewhere else
            await up(app, pilot)
            await pilot.press("q")
            await settled(pilot, lambda: not app.is_running)
        assert other.started.poll() is None
        await other.stop()

    asyncio.run(story())
