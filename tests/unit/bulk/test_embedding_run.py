"""Texts become calls, and vectors come back in order, however the calls end."""

import asyncio
from decimal import Decimal

import numpy as np
import pytest

from appliance.bulk.embedding_run import CALL_CHARS_MAX, calls_of, run
from appliance.bulk.part_file import HEAD_BYTES, PartFile, order_of
from appliance.client.embedding_calls import EmbeddedTexts
from appliance.core.errors import InvalidRequest

ORDER = order_of(["a file"])


def vector(text):
    return np.array([float(text), -float(text)], dtype="<f4").tobytes()


class Server:
    def __init__(self, *, fails_at=None, fingerprint="f"):
        self.in_flight = self.most = 0
        self.asked = []
        self.fails_at, self.fingerprint = fails_at, fingerprint

    async def embed(self, texts, place):
        assert place == int(texts[0]) + 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        self.asked += texts
        await asyncio.sleep(0.02 / (1 + float(texts[0])))  # later calls end first
        self.in_flight -= 1
        if self.fails_at in texts:
            raise InvalidRequest("no")
        return EmbeddedTexts(
            [vector(t) for t in texts], len(texts), Decimal("0.1"), self.fingerprint
        )


def embedded(path, server, count, **more):
    part = PartFile(path, ORDER, restart=False)
    try:
        return asyncio.run(
            run(
                iter(map(str, range(count))),
                server.embed,
                part,
                **({"size": 3, "in_flight": 4, "progress": lambda _: None} | more),
            )
        )
    finally:
        part.close()


def rows(path):
    part = PartFile(path, ORDER, restart=False)
    part.close()
    return [float(row[0]) for block in part.blocks() for row in block]


def test_vectors_are_in_order_and_calls_in_flight_are_bounded(tmp_path):
    server = Server()
    totals = embedded(tmp_path / "part", server, 50)
    assert (totals.rows, totals.resumed, totals.tokens) == (50, 0, 50)
    assert totals.cost == Decimal("1.7")  # 17 calls
    assert rows(tmp_path / "part") == list(range(50))
    assert server.most == 4


def test_a_run_that_failed_is_gone_on_with_behind_the_last_whole_row(tmp_path):
    path = tmp_path / "part"
    with pytest.raises(InvalidRequest):
        embedded(path, Server(fails_at="20"), 50)
    done = len(rows(path))
    assert 0 < done <= 20
    with path.open("ab") as file:
        file.write(b"12345")
    server = Server()
    totals = embedded(path, server, 50)
    assert (totals.rows, totals.resumed) == (50, done)
    assert server.asked[0] == str(done)
    assert rows(path) == list(range(50))


def test_what_does_not_go_together_is_refused(tmp_path):
    path = tmp_path / "part"
    with pytest.raises(InvalidRequest):
        embedded(path, Server(fails_at="20"), 50)
    with pytest.raises(InvalidRequest, match="model has changed"):
        embedded(path, Server(fingerprint="another"), 50)
    with pytest.raises(InvalidRequest, match="another input"):
        PartFile(path, order_of(["another file"]), restart=False)
    with pytest.raises(InvalidRequest, match="fewer rows"):
        embedded(path, Server(), 1)
    PartFile(path, order_of(["another file"]), restart=True).close()
    assert path.stat().st_size == 0
    path.write_bytes(b"x" * (HEAD_BYTES + 1))
    with pytest.raises(InvalidRequest, match="--restart"):
        PartFile(path, ORDER, restart=False)


def test_a_call_has_so_many_texts_and_characters():
    assert list(calls_of(iter("abcde"), 2, first=1)) == [["a", "b"], ["c", "d"], ["e"]]
    long = "x" * (CALL_CHARS_MAX - 1)
    assert list(calls_of(iter([long, "ab", "c"]), 64, first=1)) == [[long], ["ab", "c"]]
    assert list(calls_of(iter(["a", long]), 64, first=1)) == [["a", long]]
    with pytest.raises(InvalidRequest, match="row 8 is empty"):
        list(calls_of(iter(["a", "b", " "]), 2, first=6))
