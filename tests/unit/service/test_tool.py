"""One call of a command that fails, hangs, or is not there."""

import os

import pytest

from appliance.core.errors import ServiceRefused
from appliance.service import tool as module
from appliance.service.tool import answer, output
from tests.service_managers import stand_in


def test_a_tool_that_fails_is_quoted_inertly_and_one_that_hangs_is_given_up(tools, monkeypatch):
    stand_in(tools, "launchctl", "printf 'a\\033[2Jb\\nmore\\n' >&2; exit 3")
    with pytest.raises(ServiceRefused, match=r"launchctl print x failed: a\\x1b\[2Jb$"):
        answer(["launchctl", "print", "x"])
    stand_in(tools, "launchctl", "read line")
    monkeypatch.setattr(module, "CALL_SECONDS", 0.05)
    ours, theirs = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(ours, 0)  # nobody writes there
        with pytest.raises(ServiceRefused, match="does not answer"):
            output(["launchctl", "print"])
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(ours)
        os.close(theirs)


def test_a_tool_that_is_not_there_is_named(tools):
    assert list(tools.iterdir()) == []
    with pytest.raises(ServiceRefused, match="there is no launchctl here; run `gigarouter serve`"):
        output(["launchctl", "print"])
