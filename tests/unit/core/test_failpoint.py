import os
import signal

import pytest

from appliance.core import failpoint


@pytest.fixture
def killed(monkeypatch):
    """Every kill that would have happened; nothing is armed afterwards."""
    struck = []
    monkeypatch.setattr(os, "kill", lambda *strike: struck.append(strike))
    yield struck
    failpoint._armed.clear()


def test_the_process_is_killed_the_nth_time_that_it_reaches_the_place_and_no_other(killed):
    failpoint.arm("after_commit:3")
    for name in (*failpoint.NAMES, "after_commit", "before_send"):
        failpoint.reach(name)
    assert killed == []
    failpoint.reach("after_commit")
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_nothing_happens_where_nothing_is_armed(killed):
    for name in failpoint.NAMES:
        failpoint.reach(name)
    assert killed == []


@pytest.mark.parametrize(
    "text",
    ["", "after_commit", "after_commit:0", "after_commit:-1", "after_commit:x", "nowhere:1", ":1"],
)
def test_a_place_that_is_none_is_refused(killed, text):
    with pytest.raises(ValueError, match="a failpoint is one of before_hold"):
        failpoint.arm(text)
    failpoint.reach("after_commit")
    assert killed == []
