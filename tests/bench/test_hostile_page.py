"""A page of somebody else in a real browser: it gets nothing, and would if the edge let it."""

import pytest

from tests.bench.hostile_page import browser, run, state


@pytest.fixture
def attacked(make_server):
    """Return a function that lets the page attack a server, with what changed."""
    program = browser()
    if program is None:
        pytest.skip("there is no browser here")

    def attack(**env):
        server = make_server().start("--fake", env=env)
        key = str(server.mint("victim", credit="1")["key"])
        before = state(server)
        found = run(server, key, program)
        after = state(server)
        return found, {name for name in before if before[name] != after[name]}

    return attack


def test_a_page_of_somebody_else_reads_changes_and_spends_nothing(attacked):
    found, changed = attacked()
    assert len(found.tried) > 200
    assert {status for _, status in found.reached} == {421}
    assert found.read == []
    assert changed == set()


def test_the_same_page_under_a_name_that_the_server_goes_by_would(attacked):
    found, changed = attacked(GIGAROUTER_HOSTS="evil.example")
    assert {how for how, _, _ in found.read} >= {
        "fetch",
        "fetch a page",
        "fetch as operator",
        "post",
        "frame",
    }
    assert changed >= {"keys", "usage"}
