"""A few deaths of a supervised server, with and without the engine."""

import random
import re

import pytest

from tests.bench import deaths
from tests.bench.deaths import Client, Round


@pytest.mark.parametrize("flags", [["--fake"], []], ids=["fake", "engine"])
def test_a_server_that_is_killed_under_load_is_back_without_a_refused_connection(
    make_server, flags
):
    server = make_server().start(*flags, supervise=True, env=deaths.AT_ONCE)
    clients = [Client(server, str(server.mint()["key"])) for _ in range(8)]
    rounds = deaths.measure(server, clients, rounds=4, chance=random.Random(1))
    assert [each.name for each in rounds] == list(deaths.SIGNALS)
    assert server.stop() == 0
    assert deaths.problems(server, clients) == []
    assert sum(len(client.answered) for client in clients) > 8
    assert set.union(*(client.statuses for client in clients)) <= {200, 503}
    log = server.log.read_text()
    ended = re.findall(r"the server was ended by (\w+); it is started again now", log)
    assert len(ended) == len(deaths.SIGNALS)
    assert ended[0] == "SIGKILL"
    # Writing the stacks of threads that run on may itself end in SIGSEGV.
    for name, found in zip(deaths.SIGNALS[1:], ended[1:], strict=True):
        assert found in (name, "SIGSEGV")
    # What a signal of native code left is in the log of the next server.
    assert "the last server's end: Fatal Python error: Segmentation fault" in log
    assert "the last server's end: Fatal Python error: Aborted" in log


def test_the_table_names_each_signal_and_what_was_cut_off(make_server):
    client = Client(make_server(), "k", answered=["a"], refused=2, cut_off=3)
    text = deaths.table([Round("SIGKILL", 1.0), Round("SIGBUS", 2.0)], [client])
    assert "SIGKILL" in text
    assert "SIGSEGV" not in text
    assert "1 calls answered, 3 cut off, 2 connections refused" in text
