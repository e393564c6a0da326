"""A disk that fills up while calls are served: nothing acknowledged is lost, and it ends by itself."""

import asyncio
import json
import threading
import time
from http.client import HTTPConnection

import pytest

from appliance.core.clock import SystemClock
from appliance.core.errors import StorageFull
from appliance.core.limits import Limits
from appliance.store.reserve import PAUSE_S, Reserve
from appliance.store.writer import Writer
from tests.appliance import bench
from tests.money.audit import Books
from tests.money.disks import mounted
from tests.server import EMBED, Server

CLIENTS = 4
BEGUN = 120
PATIENCE_S = 30.0
BODY = {"model": EMBED, "input": "a short text"}


def _tables(connection):
    connection.execute("CREATE TABLE notes (number INTEGER PRIMARY KEY, text TEXT) STRICT")


def note(number):
    return lambda c: c.execute("INSERT INTO notes VALUES (?, ?)", (number, "x" * 200))


def test_hundreds_of_commits_find_room_in_the_reserve(tmp_path):
    with mounted(tmp_path / "disk", megabytes=24) as disk:
        reserve = Reserve(disk.path / "reserve", 8 * 1024 * 1024, SystemClock())
        writer = Writer(
            disk.path / "books.db", (("m001", _tables),), writes_max=100, reserve=reserve
        )
        writer.call(note(0))
        disk.fill()
        refused_at = None
        for number in range(1, 2_000):
            writer.call(note(number))  # each its own commit, and none fails
            if refused_at is None and "short" in repr(writer):
                refused_at = number
        assert refused_at is not None, "the disk never was full"
        assert 2_000 - refused_at > 500
        with pytest.raises(StorageFull):
            writer.call(note(-1), essential=False)
        disk.free()
        deadline = time.monotonic() + 2 * PAUSE_S
        while "short" in repr(writer) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert writer.call(note(-1), essential=False)
        writer.close()


def test_calls_that_were_begun_are_answered_and_charged_and_new_ones_wait_for_space(tmp_path):
    limits = Limits()

    async def scenario(disk):
        async with bench(disk.path, limits=limits) as on:
            header = await on.key(credit="1")

            async def call():
                return await on.client.post("/v1/embeddings", json=BODY, headers=header)

            assert (await call()).status_code == 200
            on.backend.gate.clear()
            begun = [asyncio.create_task(call()) for _ in range(BEGUN)]
            held = 0
            async with asyncio.timeout(PATIENCE_S):
                while held < BEGUN:
                    await asyncio.sleep(0.01)
                    held = len(on.books.balances._open)
            disk.fill()
            on.backend.gate.set()
            answers = await asyncio.gather(*begun)
            assert {answer.status_code for answer in answers} == {200}
            refused = await call()
            assert refused.status_code == 503, refused.text
            assert refused.json()["error"]["code"] == "storage_full"
            assert int(refused.headers["retry-after"]) == refused.json()["error"]["retry_after_s"]
            assert refused.headers["x-should-retry"] == "true"
            disk.free()
            on.clock.advance(PAUSE_S)
            assert (await on.client.get("/account", headers=header)).status_code == 200
            # Any write makes the writer look.
            await on.books.writer.run(lambda _: None)
            assert (await call()).status_code == 200
        return {a.headers["x-request-id"] for a in answers}

    with mounted(tmp_path / "disk", megabytes=64) as disk:
        promised = asyncio.run(scenario(disk))
        books = Books(disk.path)
        assert books.problems == []
        assert promised <= set(books.charges)
        assert set(books.charges.values()) == {1}


class Client(threading.Thread):
    """Calls without a pause, and remembers what it was told and when."""

    def __init__(self, server, key):
        super().__init__(daemon=True)
        self.server, self.key = server, key
        self.stop = threading.Event()
        self.promised = {}
        self.told = []
        self.served_at = 0.0

    def run(self):
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        while not self.stop.is_set():
            connection.request(
                "POST", "/v1/embeddings", json.dumps(BODY), {"authorization": f"Bearer {self.key}"}
            )
            answer = connection.getresponse()
            body = json.loads(answer.read())
            if answer.status == 200:
                self.promised[answer.headers["x-request-id"]] = answer.headers["x-cost"]
                self.served_at = time.monotonic()
            else:
                self.told.append((answer.status, body["error"]["code"]))
                self.stop.wait(0.02)  # a refusal takes the server no time, and us the cores
        connection.close()


def until(happened, seconds):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_on_a_full_disk_refuses_with_503_loses_nothing_and_is_back_in_five_seconds(
    tmp_path,
):
    with mounted(tmp_path / "data", megabytes=64) as disk:
        server = Server(disk.path).start("--fake")
        try:
            key = server.mint(credit="1")["key"]
            clients = [Client(server, key) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            until(lambda: all(client.promised for client in clients), PATIENCE_S)
            for _ in range(2):
                told = len(clients[0].told)
                disk.fill()
                until(lambda told=told: len(clients[0].told) > told + 5, PATIENCE_S)
                # While it is full the operator sees and tops up.
                with server.admin() as admin:
                    assert admin.get("/keys").status_code == 200
                    [view] = admin.get("/keys").json()["data"]
                    assert admin.post(f"/keys/{view['id']}/topup", json={"credit": "1"}).is_success
                disk.free()
                freed = time.monotonic()
                until(lambda freed=freed: all(c.served_at > freed for c in clients), PATIENCE_S)
                assert max(client.served_at for client in clients) - freed < 5
            for client in clients:
                client.stop.set()
                client.join(30)
            assert {told for client in clients for told in client.told} == {(503, "storage_full")}
            assert server.held() == 0
            assert server.stop() == 0
        finally:
            server.close()
        books = Books(disk.path)
        promised = {name for client in clients for name in client.promised}
        assert books.problems == []
        assert promised == set(books.charges)
        assert set(books.charges.values()) == {1}
        log = server.log.read_text()
        assert "Traceback" not in log
        assert log.count("the disk is full") == log.count("there is space on the disk again") == 2


def test_a_server_starts_on_a_full_disk_and_serves_once_there_is_space(tmp_path):
    with mounted(tmp_path / "data", megabytes=64) as disk:
        server = Server(disk.path).start("--fake")
        try:
            key = server.mint(credit="1")["key"]
            server.kill()
            disk.fill()
            server.start("--fake")
            with server.client(key) as client:
                refused = client.post("/v1/embeddings", json=BODY)
                assert (refused.status_code, refused.json()["error"]["code"]) == (
                    503,
                    "storage_full",
                )
                assert client.get("/account").json()["balance"] == 1
                disk.free()
                began = time.monotonic()
                until(lambda: client.post("/v1/embeddings", json=BODY).status_code == 200, 5)
                assert time.monotonic() - began < 5
            assert server.stop() == 0
        finally:
            server.close()
        assert Books(disk.path).problems == []
