"""kill -9 in the middle of batches: every line is answered once, and charged once."""

import os
import random

import httpx2
import pytest

from tests.money.audit import Books
from tests.money.batches import WAYS, Story, open_charges

KILLS = int(os.environ.get("BATCH_KILLS", str(len(WAYS))))
LINES = int(os.environ.get("BATCH_LINES", "3000"))
SEED = int(os.environ.get("KILL_SEED", "8"))


def test_a_batch_that_is_killed_again_and_again_is_answered_once_and_charged_once(
    make_server, tmp_path
):
    server = make_server()
    moments = random.Random(SEED)
    server.start("--fake")
    story = Story(server, server.mint("killed", credit="1"), LINES)
    story.order(tmp_path)
    for kill in range(KILLS):
        story.until(LINES * (kill + 1) // (KILLS + 2))
        assert story.killed(WAYS[kill % len(WAYS)], moments, ("--fake",))
    figures = story.prove(story.ended())
    assert figures["refunded"] == 0, "a line that is charged is never given back and charged again"
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_kill_at_the_end_of_a_batch_makes_one_end(make_server, tmp_path):
    server = make_server()
    server.start("--fake", env={"GIGAROUTER_FAILPOINT": "before_end:1"})
    story = Story(server, server.mint("end", credit="1"), 200)
    story.order(tmp_path)
    assert server.process.wait(60) != 0
    server.start("--fake")
    assert story.prove(story.ended())["charges"] == 196


def test_a_drain_leaves_a_batch_for_the_next_start(make_server, tmp_path):
    server = make_server()
    server.start("--fake")
    story = Story(server, server.mint("drained", credit="1"), 2_000)
    story.order(tmp_path)
    story.until(100)
    assert server.stop() == 0
    assert open_charges(server.data_dir) == 0, "what was in flight has ended, and is written"
    server.start("--fake")
    assert story.prove(story.ended())["refunded"] == 0


@pytest.mark.parametrize("way", ["after_commit", "before_results"])
def test_what_was_charged_and_not_written_is_computed_or_given_back(make_server, tmp_path, way):
    """A line is charged, the server dies, and the batch is cancelled, or its key is revoked."""
    server = make_server()
    server.start("--fake", env={"GIGAROUTER_FAILPOINT": f"{way}:2"})
    key = server.mint("charged", credit="1")
    story = Story(server, key, 2_000)
    story.order(tmp_path)
    assert server.process.wait(60) != 0
    charged = open_charges(server.data_dir)
    assert charged > 0
    server.start("--fake")
    if way == "after_commit":
        with story.client() as client:
            assert client.post(f"/v1/batches/{story.batch}/cancel").status_code == 200
        seen = story.ended()
        assert seen["status"] == "cancelled"
        completed = seen["request_counts"]["completed"]
        assert len(list(story.results(seen["output_file_id"]))) == completed >= charged
        books = Books(server.data_dir)
        assert len(books.charges) == completed
        assert not books.refunded
    else:
        with server.admin() as admin:
            assert admin.post(f"/keys/{key['id']}/revoke").status_code in (200, 201)
        with pytest.raises(httpx2.HTTPStatusError):
            story.ended()
        written = None
        while written is None or open_charges(server.data_dir):
            written = Books(server.data_dir)
        assert set(written.refunded.values()) <= {"refund"}
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    assert books.undelivered == 0
