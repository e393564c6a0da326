"""Backups of a server at work: each holds every call that was acknowledged before it began."""

import json
import shutil
import threading
from http.client import HTTPConnection

from tests.money.audit import Books
from tests.server import EMBED, RERANK, Server

CLIENTS = 6
BACKUPS = 8


class Client(threading.Thread):
    """Calls until told to stop; `heard` are the calls that were answered."""

    def __init__(self, server, secret, number, stop):
        super().__init__()
        self.server, self.secret, self.number, self.stop = server, secret, number, stop
        self.heard = []

    def run(self):
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        headers = {"authorization": f"Bearer {self.secret}"}
        while not self.stop.is_set():
            text = f"{self.number} {len(self.heard)}"
            path, body = (
                ("/v1/embeddings", {"model": EMBED, "input": text})
                if self.number % 2
                else ("/v1/rerank", {"model": RERANK, "query": text, "documents": ["a", "b"]})
            )
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            self.heard.append(answer.headers["x-request-id"])
        connection.close()


def test_a_backup_under_load_is_whole_and_holds_what_was_acknowledged(make_server, tmp_path):
    server = make_server().start("--fake")
    secret = server.mint(credit="10")["key"]
    stop = threading.Event()
    clients = [Client(server, secret, number, stop) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    sizes, heard_before = [], []
    try:
        for number in range(BACKUPS):
            heard_before.append({request for client in clients for request in client.heard[:]})
            end = server.cli("backup", str(tmp_path / f"{number}.db"))
            assert end.returncode == 0, end.stderr
            sizes.append((tmp_path / f"{number}.db").stat().st_size)
    finally:
        stop.set()
        for client in clients:
            client.join(30)
    assert server.stop() == 0
    assert all(size > 0 for size in sizes)
    assert len(heard_before[-1]) > len(heard_before[1]) > 0
    heard = {request for client in clients for request in client.heard}
    assert set(Books(server.data_dir).charges) == heard
    for number, before in enumerate(heard_before):
        restored = Server(tmp_path / f"restored-{number}")
        assert restored.cli("restore", str(tmp_path / f"{number}.db")).returncode == 0
        books = Books(restored.data_dir)
        assert books.problems == []
        assert before <= set(books.charges) <= heard
        shutil.rmtree(restored.data_dir)
