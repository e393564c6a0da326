"""Revoked under load: whatever is sent after the answer is refused, round after round.

`ROUNDS` says how often (200 unless the environment says otherwise).
"""

import json
import os
import threading
import time
from http.client import HTTPConnection

from tests.money.audit import Books
from tests.server import EMBED

ROUNDS = int(os.environ.get("ROUNDS", "200"))
CLIENTS = 4


class Client(threading.Thread):
    """Calls with one key until it is refused; remembers when each call was sent."""

    def __init__(self, port, secret, revoked):
        super().__init__()
        self.port, self.secret, self.revoked = port, secret, revoked
        self.ends = []
        self.first = threading.Event()

    def run(self):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"authorization": f"Bearer {self.secret}"}
        afterwards = 0
        while afterwards < 2:
            content = json.dumps({"model": EMBED, "input": f"{self.name} {len(self.ends)}"})
            afterwards += self.revoked.is_set()
            sent = time.monotonic()
            connection.request("POST", "/v1/embeddings", content, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status != 400
            self.ends.append((sent, answer.status, answer.headers["x-request-id"]))
            self.first.set()
        connection.close()


def test_no_call_that_is_sent_after_the_answer_to_its_revocation_is_accepted(make_server):
    server = make_server().start("--fake")
    accepted, refused = set(), 0
    with server.admin() as admin:
        for number in range(ROUNDS):
            minted = admin.post("/keys", json={"name": f"round {number}", "credit": "1"}).json()
            revoked = threading.Event()
            clients = [Client(server.port, minted["key"], revoked) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            for client in clients:
                assert client.first.wait(30)
            assert admin.post(f"/keys/{minted['id']}/revoke").status_code == 200
            answered = time.monotonic()
            revoked.set()
            for client in clients:
                client.join(30)
            ends = [end for client in clients for end in client.ends]
            late = [status for sent, status, _ in ends if sent > answered]
            assert len(late) >= CLIENTS
            # From one address soon 429: a key that is not accepted is asked for no more often.
            assert set(late) <= {401, 429}, f"round {number}"
            assert {status for _, status, _ in ends} <= {200, 401, 429}
            refused += len(late)
            accepted |= {request for _, status, request in ends if status == 200}
    assert server.held() == 0
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    assert set(books.charges) == accepted
    print(f"\n{ROUNDS} rounds: {len(accepted)} accepted, {refused} refused afterwards")  # noqa: T201
