"""Downloads: how many run, what becomes of the others, and how each ends."""

import threading

import pytest

from appliance.core.errors import (
    DownloadCancelled,
    DownloadFailed,
    DownloadNotFound,
    InvalidRequest,
)
from appliance.hub import downloads as module
from appliance.hub.downloads import Download, Downloads
from tests.appliance import HandClock
from tests.hub import until


@pytest.fixture
def downloads():
    found = Downloads(HandClock())
    yield found
    found.close()


class Work:
    """Work that goes on until it is let go or cancelled."""

    def __init__(self):
        self.go_on = threading.Event()

    def __call__(self, download):
        while not self.go_on.wait(0.002):
            download.require_wanted()


def test_some_run_and_the_next_begins_when_one_of_them_ends_however_it_ends(downloads):
    works = [Work() for _ in range(module.RUNNING_MAX + 2)]
    begun = [downloads.start(f"m{number}", work) for number, work in enumerate(works)]
    *running, fourth, fifth = begun
    until(lambda: all(each.state == "fetching" for each in running))
    assert [fourth.state, fifth.state] == ["waiting", "waiting"]
    works[0].go_on.set()
    until(lambda: fourth.state == "fetching")
    downloads.cancel(running[1].id)
    until(lambda: fifth.state == "fetching")
    assert running[0].state == "done"
    assert running[1].state == "cancelled"
    assert "kept" in running[1].error


def test_a_model_has_one_download_at_a_time(downloads):
    work = Work()
    first = downloads.start("m", work)
    assert downloads.start("m", Work()) is first
    work.go_on.set()
    until(lambda: first.is_over)
    assert downloads.start("m", Work()) is not first


def test_one_that_waits_is_cancelled_without_having_begun(downloads):
    begun = [downloads.start(f"m{number}", Work()) for number in range(module.RUNNING_MAX + 1)]
    assert downloads.cancel(begun[-1].id).state == "cancelled"


def test_too_many_that_wait_are_refused(downloads, monkeypatch):
    monkeypatch.setattr(module, "WAITING_MAX", 1)
    for number in range(module.RUNNING_MAX + 1):
        downloads.start(f"m{number}", Work())
    with pytest.raises(InvalidRequest, match="wait already"):
        downloads.start("one more", Work())


@pytest.mark.parametrize(
    ("raised", "state", "error"),
    [
        (None, "done", None),
        (DownloadFailed("no room"), "failed", "no room"),
        (DownloadCancelled(), "cancelled", DownloadCancelled().message),
        (RuntimeError("a fault"), "failed", "unexpected: RuntimeError('a fault')"),
    ],
)
def test_it_ends_as_its_work_does(downloads, raised, state, error):
    def work(_):
        if raised is not None:
            raise raised

    download = downloads.start("m", work)
    until(lambda: download.is_over)
    assert (download.state, download.error) == (state, error)


def test_ended_ones_are_kept_for_a_while(downloads, monkeypatch):
    monkeypatch.setattr(module, "ENDED_KEPT", 2)
    ended = []
    for number in range(5):
        ended.append(downloads.start(f"m{number}", lambda _: None))
        until(lambda: ended[-1].is_over)
    downloads.start("now", Work())
    assert [each.model for each in downloads.all()] == ["m3", "m4", "now"]
    with pytest.raises(DownloadNotFound):
        downloads.get(ended[0].id)


def test_rate_and_time_left_are_of_the_last_seconds_and_of_one_state():
    clock = HandClock()
    download = Download("dl", "m", clock)
    download.enter("fetching")
    download.expect(10_000_000)
    for _ in range(5):
        clock.advance(1.0)
        download.progress(download.bytes_have + 1_000_000)
    assert download.rate() == pytest.approx(1_000_000)
    assert download.eta_s() == 5
    download.enter("checking")
    assert (download.rate(), download.eta_s()) == (0.0, None)
    clock.advance(10.0)
    assert download.rate() == 0.0


def test_one_whose_file_gets_its_name_is_cancelled_no_more_and_an_ended_one_stays_as_it_is():
    download = Download("dl", "m", HandClock())
    download.enter("trying")
    download.keep()
    download.cancel()
    assert not download.cancelled.is_set()
    download.enter("done")
    download.cancel()
    download.enter("failed", error="later")
    assert (download.state, download.error) == ("done", None)


def test_one_that_was_cancelled_may_not_give_its_file_a_name():
    download = Download("dl", "m", HandClock())
    download.enter("trying")
    download.cancel()
    with pytest.raises(DownloadCancelled):
        download.keep()
