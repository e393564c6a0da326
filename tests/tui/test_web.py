"""The console in a browser: for this machine, this person, and no page from elsewhere."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.server import ROOT, Server, free_port

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/[\w-]{43}/")


@pytest.fixture
def served(tmp_path):
    """The address of a console over a running server, secret included."""
    server = Server(tmp_path / "data").start("--fake")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "appliance",
            "console",
            "--web",
            "--web-port",
            str(free_port()),
            "--data-dir",
            str(server.data_dir),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = process.stdout.readline()
    address = ADDRESS.search(said).group()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", urlsplit(address).port)):
            break
        time.sleep(0.02)
    yield address
    process.terminate()
    process.stdout.close()
    process.wait(20)
    if shutil.which("pgrep"):
        assert processes(f"--web-port={urlsplit(address).port} --web$") == []
    for pid in consoles(address) if shutil.which("pgrep") else ():
        os.kill(pid, signal.SIGKILL)
    server.close()


def play(served, story):
    async def run():
        async with aiohttp.ClientSession() as session:
            await story(session, f"http://127.0.0.1:{urlsplit(served).port}")

    asyncio.run(run())


async def status(session, url, **options):
    async with session.get(url, **options) as answer:
        await answer.read()
        return answer.status


def test_the_secret_opens_the_console_and_the_console_is_the_real_one(served):
    async def story(session, base):
        async with session.get(served) as page:
            assert page.status == 200
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "https" not in policy
            assert page.headers["referrer-policy"] == "no-referrer"
            assert not session.cookie_jar
            text = await page.text()
            assert f"{served}ws".replace("http", "ws") in text
        assert await status(session, f"{served}static/js/textual.js") == 200
        drawn = b""
        async with session.ws_connect(f"{served}ws?width=100&height=32", origin=base) as socket:
            async with asyncio.timeout(60):
                while b"Mint a key and try it" not in drawn:
                    drawn += (await socket.receive()).data
        assert b"Throughput" in drawn

    play(served, story)


def test_nobody_else_gets_in(served):
    async def story(session, base):
        paths = ("/", "/ws", "/static/js/textual.js", "/x/", "/download/x", f"/{'x' * 43}/ws")
        for path in paths:
            assert await status(session, base + path) == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{base}/ws")
        # A page from elsewhere that has learnt the address.
        foreign = {"origin": "http://evil.example"}
        assert await status(session, served, headers=foreign) == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{served}ws", origin="http://evil.example")
        # A name of theirs that leads here.
        assert await status(session, served, headers={"host": "evil.example"}) == 403
        assert await status(session, served) == 200

    play(served, story)


def processes(pattern):
    listed = subprocess.run(
        ["pgrep", "-f", "--", pattern], capture_output=True, text=True, check=False
    ).stdout.split()
    return [int(pid) for pid in listed]


def consoles(served):
    """The processes that draw for a browser: children of the one that serves."""
    return processes(f"-m tui --data-dir .* --web-port={urlsplit(served).port}$")


def gone(served):
    deadline = time.monotonic() + 15
    while consoles(served):
        assert time.monotonic() < deadline, consoles(served)
        time.sleep(0.1)


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="there is no pgrep here")
def test_a_browser_that_leaves_leaves_no_console_behind(served):
    async def story(session, base):
        for seconds in (0, 0.3, 1.0, 2.0):
            address = f"{served}ws?width=144&height=36"
            async with session.ws_connect(address, origin=base) as socket:
                # A browser tells its size again, once it knows its letters.
                await socket.send_json(["resize", {"width": 144, "height": 42}])
                await asyncio.sleep(seconds)
        await asyncio.to_thread(gone, served)

    play(served, story)


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="there is no pgrep here")
def test_consoles_end_with_a_web_server_that_is_killed(served):
    async def story(session, base):
        async with session.ws_connect(f"{served}ws", origin=base) as socket:
            async with asyncio.timeout(30):
                while b"Throughput" not in (await socket.receive()).data:
                    pass
            assert len(consoles(served)) == 1
            serving = processes(f"--web-port={urlsplit(base).port} --web$")
            os.kill(serving[0], signal.SIGKILL)
            await asyncio.to_thread(gone, served)

    play(served, story)


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        end = subprocess.run(
            [
                sys.executable,
                "-m",
                "appliance",
                "console",
                "--web",
                "--web-port",
                str(taken.getsockname()[1]),
                "--data-dir",
                str(tmp_path / "data"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert end.returncode == 1
    assert end.stderr.startswith("Error: cannot listen on 127.0.0.1:")
    assert "Traceback" not in end.stderr
