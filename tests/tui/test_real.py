"""The console over a real server: the first minute, work under load, a kill, the network."""

import asyncio
import os
import signal
import ssl
import threading
from contextlib import asynccontextmanager

import httpx2
import pytest
from textual.widgets import DataTable, Input

from appliance.client import verbs
from appliance.client.local_server import LocalServer
from appliance.wire.keys import MintOrder
from tests.hub import standing_in
from tests.models import write_tiny_gguf
from tests.server import EMBED, free_port
from tests.tui.test_stories import cells, panel, settled, text_of
from tui.app import Console
from tui.screens.dialogs import Confirm
from tui.screens.form import Form
from tui.screens.welcome import Welcome

QUICK = {"GIGAROUTER_ENGINE_CALIBRATE": "false"}
"""The starter model computes; measuring the machine takes seconds at each start."""


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A data directory whose server a console starts; it is stopped afterwards."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIGAROUTER_PORT", str(free_port()))
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    server = LocalServer(data)
    yield server
    note = server.note()
    if note is not None:
        os.kill(note.pid, signal.SIGKILL)


@asynccontextmanager
async def console(local, size=(100, 32)):
    app = Console(server=local)
    async with app.run_test(size=size) as pilot:
        async with asyncio.timeout(60):
            while "up " not in text_of(app.screen_stack[0], "#status"):
                await pilot.pause(0.05)
        yield app, pilot


async def first_key(app, pilot):
    """Mint the first key and make the first call; return the key."""
    await settled(pilot, lambda: isinstance(app.screen, Welcome))
    await pilot.press("enter")
    await settled(pilot, lambda: "$0.0" in text_of(app.screen, "#first-call"))
    secret = text_of(app.screen, "#secret")
    await pilot.press("enter")
    return secret


def figure(app):
    return panel(app, "figures").splitlines()[1].split()[0]


def test_what_was_served_is_graphed_after_a_restart(local):
    async def story():
        async with console(local) as (app, pilot):
            await first_key(app, pilot)
            await pilot.press("q")
            await settled(pilot, lambda: len(app.screen_stack) == 2)
            await pilot.press("l")
        await local.stop()
        again = LocalServer(local.data_dir)
        async with console(again) as (app, pilot):
            since = "none since the server started"
            await settled(pilot, lambda: since in panel(app, "recent"))
            await pilot.press("h", "h", "h")
            await settled(pilot, lambda: "24 h" in app.query_one("#chart-0").border_title)
            title = app.query_one("#chart-0").border_title
            assert title.startswith("tokens/s, 24 h, highest minute ")
            assert not title.endswith(" 0")
        await again.stop()

    asyncio.run(story())


def test_from_nothing_to_a_first_call_and_a_server_that_stays(local):
    async def story():
        async with console(local) as (app, pilot):
            secret = await first_key(app, pilot)
            assert local.started is not None
            await pilot.press("q")
            await settled(pilot, lambda: len(app.screen_stack) == 2)
            await pilot.press("l")
        note = local.note()
        assert note is not None
        answer = httpx2.post(
            f"{note.url}/v1/embeddings",
            json={"model": EMBED, "input": "a"},
            headers={"authorization": f"Bearer {secret}"},
        )
        assert answer.status_code == 200
        # The next console attaches to it, and does not offer to stop it.
        again = LocalServer(local.data_dir)
        async with console(again) as (app, pilot):
            await pilot.pause(0.3)
            assert len(app.screen_stack) == 1
            assert again.started is None
        await local.stop()

    asyncio.run(story())


def test_calls_are_seen_and_a_killed_server_is_said_and_found_when_it_is_back(local):
    async def story():
        async with console(local) as (app, pilot):
            secret = await first_key(app, pilot)
            stop = threading.Event()

            def load():
                with httpx2.Client(base_url=local.note().url) as client:
                    while not stop.is_set():
                        client.post(
                            "/v1/embeddings",
                            json={"model": EMBED, "input": "a b c"},
                            headers={"authorization": f"Bearer {secret}"},
                        )

            thread = threading.Thread(target=load)
            thread.start()
            try:
                await settled(pilot, lambda: panel(app, "recent").count("200 ok") > 3)
                await settled(pilot, lambda: figure(app) not in ("0", "0.0"))
                await settled(pilot, lambda: "\u28ff" in panel(app, "chart-0"))
            finally:
                stop.set()
                await asyncio.to_thread(thread.join)
            os.kill(local.note().pid, signal.SIGKILL)
            local.started.wait(10)
            await settled(pilot, lambda: app.query_one("#status").has_class("lost"))
            back = LocalServer(local.data_dir)
            await back.start()
            await settled(pilot, lambda: not app.query_one("#status").has_class("lost"))
        await back.stop()

    asyncio.run(story())


def test_a_model_is_added_and_pulled_from_a_hub(local, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    async def story():
        async with console(local) as (app, pilot):
            await settled(pilot, lambda: isinstance(app.screen, Welcome))
            await pilot.press("escape", "2")
            table = app.screen_stack[0].query_one("#models", DataTable)
            await settled(pilot, lambda: table.row_count >= 20)
            await pilot.press("a")
            await settled(pilot, lambda: isinstance(app.screen, Form))
            app.screen.query_one("#field-repo", Input).value = "owner/tiny-GGUF"
            await pilot.press("enter")
            # While it is being added it has a row that nothing can be pulled for.
            await settled(
                pilot,
                lambda: any(
                    row[0] == "owner/tiny-GGUF" and row[4].startswith("\u2193")
                    for row in cells(app, "#models")
                ),
            )
            table.move_cursor(row=table.row_count - 1)
            await pilot.press("p")
            await settled(pilot, lambda: cells(app, "#models")[-1][4].startswith("\u25cb here"))
        await local.stop()

    with standing_in() as (hub, endpoint):
        monkeypatch.setenv("GIGAROUTER_HUB_ENDPOINT", endpoint)
        gguf = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1).read_bytes()
        hub.put("owner/tiny-GGUF", "tiny-Q8_0.gguf", gguf)
        asyncio.run(story())


def test_the_server_is_opened_to_the_network_with_a_certificate_made_on_the_spot(
    local, monkeypatch
):
    port = os.environ["GIGAROUTER_PORT"]
    monkeypatch.delenv("GIGAROUTER_PORT")
    (local.data_dir / "config.toml").write_text(f"# mine\nport = {port}\n")

    async def story():
        async with console(local) as (app, pilot):
            await settled(pilot, lambda: isinstance(app.screen, Welcome))
            await pilot.press("escape", "4")
            await settled(pilot, lambda: "mint one first" in text_of(app, "#lan"))
            await pilot.press("o")
            await settled(pilot, lambda: len(app._notifications) == 1)
            assert not isinstance(app.screen, Form)
            await app.client.do(verbs.MINT, order=MintOrder(name="a"))
            await settled(pilot, lambda: "mint one first" not in text_of(app, "#lan"))
            await pilot.press("o")
            await settled(pilot, lambda: isinstance(app.screen, Form))
            app.screen.query_one("#field-port", Input).value = port
            await pilot.press("enter")
            await settled(pilot, lambda: app.client.url.startswith("https://0.0.0.0"))
            await settled(pilot, lambda: "Teammates use" in text_of(app, "#lan"))
            page = text_of(app, "#lan")
            assert "r shows the QR code" in page or "\u2580" in page
            assert "Without TLS" not in page
            assert str(local.data_dir / "tls" / "ca.pem") in page.replace("\n", "")
            assert page.count("SHA-256") == 1
            trusted = ssl.create_default_context(cafile=local.data_dir / "tls" / "ca.pem")
            found = httpx2.get(f"https://127.0.0.1:{port}/health", verify=trusted)
            assert found.status_code == 200
            assert (local.data_dir / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
            await pilot.press("x")
            await settled(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await settled(pilot, lambda: app.client.url.startswith("http://127.0.0.1"))
            assert "# mine" in (local.data_dir / "config.toml").read_text()
        await local.stop()

    asyncio.run(story())
