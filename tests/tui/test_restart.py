"""A server that died and was started again by its supervisor: the console says so, and why."""

import msgspec
import pytest

from tests.tui.fake import FakeServer
from tests.tui.test_stories import drawn, play, settled
from tui.restart import age_of, restarted

STATS = FakeServer().stats


def stats(uptime_s, ended_before=""):
    return msgspec.structs.replace(STATS, uptime_s=uptime_s, ended_before=ended_before)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, stats(3, "was ended by SIGKILL"), ""),
        (None, msgspec.structs.replace(STATS, version="9.9"), "the server that runs is 9.9, and"),
        (stats(100), stats(100), ""),
        (stats(100), stats(101, "was ended by SIGKILL"), ""),
        (stats(100), stats(2, "was ended by SIGKILL"), "The server was ended by SIGKILL and was"),
        (stats(100), stats(2), "The server ended and was started again 2s ago"),
    ],
)
def test_only_a_server_that_runs_for_less_long_was_started_again(before, now, said):
    found = restarted(before, now)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_what_is_old_is_said_with_its_age():
    assert age_of(None, 5) == ""
    assert age_of(1_000_000_000, 91_000_000_000) == "what you see is 1m 30s old"


def test_the_console_says_that_the_server_died_and_runs_again():
    async def story(app, pilot, gateway):
        await settled(pilot, lambda: "up 1h 1m" in drawn(app))
        gateway.stats = stats(4, "was ended by SIGSEGV")
        await settled(pilot, lambda: "was ended by SIGSEGV" in drawn(app))
        assert "started again 4s ago" in drawn(app).replace("\n", " ")
        assert "trying again" not in drawn(app)

    play(story)
