"""Screenshots: the console as it is, over a real server under load, for the README.

    .venv/bin/python packaging/screenshots.py

Writes packaging/screenshots/*.svg: Textual's own pictures of the terminal.
"""

import asyncio
import random
import re
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from appliance.client.local_server import LocalServer  # noqa: E402
from tests.server import EMBED, RERANK, Server  # noqa: E402 - after the path
from tui.app import Console  # noqa: E402

FOLDER = ROOT / "packaging" / "screenshots"
SIZE = (124, 38)
LOAD_S = 40
KEY = re.compile(r"gr-[0-9A-Za-z]{38}")


def load(server: Server, key: str, stop: threading.Event) -> None:
    """Call as a small team does."""
    chance = random.Random(key)  # noqa: S311 - no secret
    with server.client(key) as client:
        while not stop.is_set():
            words = ["word " * chance.randint(1, 60) for _ in range(chance.randint(1, 8))]
            client.post("/v1/embeddings", json={"model": EMBED, "input": words})
            documents = ["a text"] * chance.randint(1, 6)
            body = {"model": RERANK, "query": "which", "documents": documents}
            client.post("/v1/rerank", json=body)
            stop.wait(chance.random() / 5)


async def shoot() -> None:
    """Draw each tab once."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start()
        app, stop = Console(server=LocalServer(server.data_dir)), threading.Event()
        async with app.run_test(size=SIZE) as pilot:

            def keep(name: str) -> None:
                drawn = app.export_screenshot(title="gigarouter")
                # As long as the temporary one, so that nothing moves.
                drawn = drawn.replace(str(server.data_dir), "/home/team/gigarouter")
                # A scanner for leaked keys must not find one here.
                drawn = KEY.sub("gr-" + "\u2022" * 38, drawn)
                (FOLDER / f"{name}.svg").write_text(drawn)

            await pilot.pause(2)
            await pilot.press("enter")
            await pilot.pause(2)
            keep("welcome")
            await pilot.press("enter")
            names = ("alice", "bob", "search-team")
            keys = [str(server.mint(name, credit="5", rpm=6000)["key"]) for name in names]
            threads = [threading.Thread(target=load, args=(server, k, stop)) for k in keys]
            for thread in threads:
                thread.start()
            await pilot.pause(LOAD_S)
            keep("throughput")
            for key, name in (("2", "models"), ("5", "log")):
                await pilot.press(key)
                await pilot.pause(1.5)
                keep(name)
            stop.set()
        for thread in threads:
            thread.join()
        server.stop()


asyncio.run(shoot())
