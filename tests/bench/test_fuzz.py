"""A few fuzzed requests to every route, and that the command would see what is wrong."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import fuzz
from tests.server import Server

REQUESTS = 24


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data")
    yield server.start("--fake")
    server.close()


def test_no_route_dies_of_what_is_sent_or_answers_500(own):
    found = fuzz.run(own, [], seed=fuzz.SEED, requests=REQUESTS, connections=4)
    assert len(found) > 30
    assert all(each.sent == REQUESTS for each in found)
    assert [line for each in found for line in each.wrong] == []
    answered = sum(sum(each.statuses.values()) - each.statuses[0] for each in found)
    assert answered > len(found) * REQUESTS / 2
    looks, in_time = fuzz.lags(own)
    assert 0 < in_time <= looks
    assert own.stop() == 0


def test_the_same_seed_sends_the_same_bytes():
    def some(seed):
        chance = random.Random(seed)
        return [fuzz.request(chance, "POST", "/v1/rerank", "k") for _ in range(50)]

    assert some(1) == some(1) != some(2)
    assert {is_whole for _, is_whole in some(1)} == {True, False}


@pytest.mark.parametrize(
    ("status", "answer", "is_wrong"),
    [
        (200, b"HTTP/1.1 200 OK\r\n\r\n", False),
        (400, b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (500, b"HTTP/1.1 500 Internal Server Error\r\n\r\n", True),
        (501, b"HTTP/1.1 501 Not Implemented\r\n\r\n", False),
        (502, b"HTTP/1.1 502 Bad Gateway\r\n\r\n", True),
        (503, b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n", False),
        (503, b"HTTP/1.1 503 Service Unavailable\r\n\r\n", True),
        (0, b"", False),
    ],
)
def test_the_verdict_is_on_the_servers_faults_alone(status, answer, is_wrong):
    assert (fuzz.verdict(status, answer) is not None) == is_wrong
