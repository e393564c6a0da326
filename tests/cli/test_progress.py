"""How far something is, on standard error: what is drawn of what a server says."""

import io
import sys

import pytest

from appliance.cli import progress
from appliance.wire.additions import AdditionList, AdditionView
from appliance.wire.downloads import DownloadView
from appliance.wire.models import LengthView, TrialRunView


class Terminal(io.StringIO):
    """Standard error that is a terminal or none."""

    def __init__(self, *, is_one):
        super().__init__()
        self.is_one = is_one

    def isatty(self):
        return self.is_one


def standard_error(monkeypatch, *, is_terminal):
    stream = Terminal(is_one=is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")
    return stream


def added(*stages):
    return AdditionList(
        [AdditionView("add_1", "big", "/m/big.gguf", *stage) for stage in stages]
        + [AdditionView("add_2", "other", "/m/other.gguf", "hash", 1, 2)]
    )


STAGES = [("", 0, 0), ("copy", 0, 10**9), ("copy", 5 * 10**8, 10**9), ("try", 0, 0)]


def test_without_a_terminal_each_stage_of_this_addition_has_one_line(monkeypatch):
    said = standard_error(monkeypatch, is_terminal=False)
    with progress.addition("/m/big.gguf", None) as watch:
        for stage in STAGES:
            watch.show(added(stage))
    assert said.getvalue() == "big: copying\nbig: trying\n"


def test_on_a_terminal_the_share_of_a_stage_is_drawn_in_one_line_and_removed_at_the_end(
    monkeypatch,
):
    said = standard_error(monkeypatch, is_terminal=True)
    with progress.addition("/m/big.gguf", "big") as watch:
        for stage in STAGES:
            watch.show(added(stage))
    drawn = said.getvalue().split("\r\x1b[K")
    bar = "#" * 12 + " " * 12
    assert drawn == [
        "",
        f"big: copying [{' ' * 24}]   0% of 1,000 MB",
        f"big: copying [{bar}]  50% of 1,000 MB",
        "big: trying",
        "",
    ]


def test_without_a_terminal_each_state_of_a_download_has_one_line(monkeypatch):
    said = standard_error(monkeypatch, is_terminal=False)
    view = DownloadView("dl_1", "m", "waiting", 0, 0, 0.0, None, None)
    with progress.download(view) as show:
        for state, have in (("fetching", 1), ("fetching", 50), ("trying", 100), ("done", 100)):
            show(DownloadView("dl_1", "m", state, have, 100, 5.0, 3, None))
    assert said.getvalue() == "m: waiting\nm: fetching\nm: trying\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_each_length_of_a_trial_is_said_once_and_stays(monkeypatch, is_terminal):
    said = standard_error(monkeypatch, is_terminal=is_terminal)
    first, second = LengthView(128, 0.5, 10**7), LengthView(256, 1.25, 2 * 10**7)
    with progress.trial("m") as watch:
        for lengths in ([], [first], [first], [first, second]):
            watch.show(TrialRunView("m", "computing", lengths))
    lines = [line for line in said.getvalue().replace("\r\x1b[K", "\n").splitlines() if line]
    kept = [line for line in lines if line != "m: computing"]
    assert kept == ["128 tokens: 0.50 s, 10 MB", "256 tokens: 1.25 s, 20 MB"]
    assert ("m: computing" in lines) is is_terminal
