"""Claims: one works on a content, the others wait and see how far it is."""

import threading
import time

import pytest

from appliance.core.errors import DownloadCancelled
from appliance.hub.claims import Claims
from appliance.hub.downloads import Download
from tests.appliance import HandClock
from tests.hub import SECONDS, until


def download(name):
    return Download(name, name, HandClock())


def test_one_holds_a_content_and_others_wait_each_with_its_progress():
    claims, first, others = Claims(), download("first"), [download("a"), download("b")]
    inside, most, guard = [0], [0], threading.Lock()

    def wait(one):
        with claims.hold("x", one):
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            with guard:
                inside[0] -= 1

    with claims.hold("x", first):
        assert not claims.is_awaited("x")
        first.expect(1_000)
        first.progress(700)
        threads = [threading.Thread(target=wait, args=(one,)) for one in others]
        for thread in threads:
            thread.start()
        until(lambda: all((one.bytes_have, one.bytes_total) == (700, 1_000) for one in others))
        assert claims.is_awaited("x")
        first.enter("trying")
        until(lambda: all(one.state == "trying" for one in others))
        # Another content is nothing to them.
        with claims.hold("y", download("other")):
            assert not claims.is_awaited("y")
    for thread in threads:
        thread.join(SECONDS)
    assert most == [1]
    assert not claims.is_awaited("x")
    assert repr(claims) == "<Claims [0 held | 0 waiting]>"


def test_one_that_waits_and_is_cancelled_leaves_and_a_failure_frees_the_content():
    claims, waiting, ends = Claims(), download("waiting"), []

    def wait():
        try:
            with claims.hold("x", waiting):
                ends.append("held")
        except DownloadCancelled:
            ends.append("cancelled")

    def fail():
        with claims.hold("x", download("first")):
            thread = threading.Thread(target=wait)
            thread.start()
            until(lambda: claims.is_awaited("x"))
            waiting.cancel()
            thread.join(SECONDS)
            assert ends == ["cancelled"]
            assert not claims.is_awaited("x")
            raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        fail()
    with claims.hold("x", download("next")):
        assert repr(claims) == "<Claims [1 held | 0 waiting]>"
