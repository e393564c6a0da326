"""Fetching with the real client from a hub that stands in: whatever breaks, no wrong file."""

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress

import pytest

from appliance.core.errors import DownloadCancelled, DownloadFailed
from appliance.hub import fetch as fetching
from appliance.hub.fetch import fetch, part_of
from appliance.hub.part import Watch
from appliance.hub.remote import Hub
from appliance.settings import HubSettings
from appliance.store.digests import Digests
from tests.hub import COMMIT, TOKEN, standing_in
from tests.money.disks import mounted
from tests.server import ROOT

REPO, PATH = "owner/model-GGUF", "folder/model-Q8_0.gguf"
CONTENT = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "PAUSES_S", (0.01,) * 5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with standing_in() as (hub, endpoint):
        hub.put(REPO, PATH, CONTENT)
        hub.endpoint = endpoint
        yield hub


def client(hub, **settings):
    return Hub(HubSettings(endpoint=hub.endpoint, **settings))


def pull(hub, target, *, cancelled=None, progress=lambda _: None, **settings):
    theirs = client(hub, **settings)
    file = theirs.find(REPO, PATH, None)
    watch = Watch(cancelled or threading.Event(), progress)
    fetch(theirs, file, target, watch=watch, digests=Digests(None))
    return file


def nothing_but_parts(folder):
    return all(path.name.endswith(".part") for path in folder.iterdir() if path.is_file())


def test_a_file_is_fetched_verified_and_named(hub, tmp_path):
    seen = []
    file = pull(hub, tmp_path / "model.gguf", progress=seen.append)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert (tmp_path / "model.gguf").stat().st_mode & 0o777 == 0o600
    assert (file.revision, file.bytes, file.digest) == (
        COMMIT,
        len(CONTENT),
        hub.digest(REPO, PATH),
    )
    assert seen[0] == 0
    assert seen[-1] == len(CONTENT)
    assert seen == sorted(seen)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.gguf"]


def test_a_connection_that_is_cut_at_ten_places_costs_no_byte_twice(hub, tmp_path):
    hub.faults.cut_at = [0, 1, 100_000, 65_536, 300_000, 7, 0, 500_000, 250_001, 99]
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert len(hub.asked()) == 11
    assert hub.sent == len(CONTENT)


def test_a_hub_that_ignores_the_range_is_heard_from_the_beginning(hub, tmp_path):
    hub.faults.cut_at, hub.faults.ignore_range = [1_000_000], True
    seen = []
    pull(hub, tmp_path / "model.gguf", progress=seen.append)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert hub.sent == 1_000_000 + len(CONTENT)
    assert 0 in seen[1:]


def test_a_flipped_bit_is_found_and_the_next_pull_begins_anew(hub, tmp_path):
    hub.faults.flip = 1_234_567
    with pytest.raises(DownloadFailed, match=r"sha256 is .* and should be .* pull again"):
        pull(hub, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_more_than_was_said_is_refused(hub, tmp_path):
    hub.faults.wrong_length = True
    with pytest.raises(DownloadFailed, match="more than it said"):
        pull(hub, tmp_path / "model.gguf")
    assert nothing_but_parts(tmp_path)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_hub_that_is_busy_is_asked_again(hub, tmp_path, status):
    hub.faults.statuses = [status, status]
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert len(hub.asked()) == 3


def test_a_hub_that_asks_for_time_gets_it(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE_MAX_S", 0.3)
    hub.faults.statuses, hub.faults.retry_after = [429], "7"
    began = time.monotonic()
    pull(hub, tmp_path / "model.gguf")
    assert time.monotonic() - began > 0.29


def test_a_hub_that_never_answers_is_given_up_and_the_part_is_kept(hub, tmp_path):
    hub.faults.cut_at = [1_000_000]
    hub.faults.statuses = []
    stop = threading.Event()

    def progress(have):
        if have >= 1_000_000 and not stop.is_set():
            stop.set()
            hub.faults.statuses = [503] * 20

    with pytest.raises(DownloadFailed, match="the hub answers 503; gave up after 6 tries"):
        pull(hub, tmp_path / "model.gguf", progress=progress)
    assert nothing_but_parts(tmp_path)
    hub.faults.statuses = []
    pull(hub, tmp_path / "model.gguf")
    assert hub.sent == len(CONTENT)


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_refusal_is_a_refusal(hub, tmp_path, status):
    hub.faults.statuses = [status]
    with pytest.raises(DownloadFailed):
        pull(hub, tmp_path / "model.gguf")
    assert len(hub.asked()) == 1


@pytest.mark.parametrize(
    ("repo", "path", "revision", "reason"),
    [
        ("owner/none", PATH, None, "no such repository"),
        (REPO, "none.gguf", None, "no such file"),
        (REPO, PATH, "f" * 40, "no such revision"),
        ("no owner", PATH, None, "no owner"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(hub, repo, path, revision, reason):
    with pytest.raises(DownloadFailed, match=reason) as refusal:
        client(hub).find(repo, path, revision)
    assert "\n" not in refusal.value.message


def test_a_gated_repository_needs_a_token_which_only_the_hub_sees(hub, tmp_path):
    hub.faults.gated, hub.faults.redirect = True, True
    with pytest.raises(DownloadFailed, match="is gated: accept its terms"):
        pull(hub, tmp_path / "model.gguf")
    pull(hub, tmp_path / "model.gguf", token=TOKEN)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    elsewhere = hub.asked(host="elsewhere")
    assert elsewhere
    assert {authorization for *_, authorization in elsewhere} == {None}


def test_a_redirect_is_followed_and_resumed(hub, tmp_path):
    hub.faults.redirect, hub.faults.cut_at = True, [1_500_000]
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert hub.sent == len(CONTENT)
    assert [asked for _, _, asked, _ in hub.asked(host="elsewhere")] == [None, "bytes=1500000-"]


def test_offline_nothing_is_asked(hub, tmp_path):
    with pytest.raises(DownloadFailed, match="offline"):
        pull(hub, tmp_path / "model.gguf", offline=True)
    assert hub.seen == []


def test_a_small_file_is_checked_by_its_git_name(hub, tmp_path):
    hub.put(REPO, PATH, b"{}" * 500, large=False)
    assert pull(hub, tmp_path / "config.json").kind == "git"
    hub.faults.flip = 3
    with pytest.raises(DownloadFailed, match="its git is"):
        pull(hub, tmp_path / "again.json")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_cancelling_keeps_what_is_there(hub, tmp_path):
    cancelled, hub.faults.pause_s = threading.Event(), 0.005

    def progress(have):
        if have > 500_000:
            cancelled.set()

    with pytest.raises(DownloadCancelled):
        pull(hub, tmp_path / "model.gguf", cancelled=cancelled, progress=progress)
    [part] = tmp_path.glob("*.part")
    have = part.stat().st_size
    assert 500_000 < have < len(CONTENT)
    hub.faults.pause_s = 0.0
    seen = []
    pull(hub, tmp_path / "model.gguf", progress=seen.append)
    assert seen[0] == have
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_the_hubs_own_cache_is_used_when_its_content_is_right(hub, tmp_path):
    blobs = tmp_path / "cache" / "models--owner--model-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    kept = blobs / hub.digest(REPO, PATH)
    kept.write_bytes(CONTENT)
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert hub.asked() == []
    kept.write_bytes(CONTENT[:-1] + b"?")
    pull(hub, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == CONTENT
    assert hub.sent == len(CONTENT)


def test_a_part_that_is_longer_than_the_file_or_wrong_is_not_built_on(hub, tmp_path):
    file = client(hub).find(REPO, PATH, None)
    part_of(tmp_path / "model.gguf", file).write_bytes(CONTENT + b"x")
    pull(hub, tmp_path / "model.gguf")
    part_of(tmp_path / "again.gguf", file).write_bytes(b"x" * 1000)
    with pytest.raises(DownloadFailed, match="pull again"):
        pull(hub, tmp_path / "again.gguf")
    pull(hub, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == CONTENT


def test_a_disk_without_room_is_refused_before_a_byte_is_asked_for(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "KEPT_FREE_BYTES", 1 << 60)
    with pytest.raises(DownloadFailed, match=r"bytes free, and folder/model-Q8_0\.gguf needs"):
        pull(hub, tmp_path / "model.gguf")
    assert hub.asked() == []


def test_a_disk_that_is_full_all_the_same_is_one_line_and_what_fits_is_kept(
    hub, tmp_path, monkeypatch
):
    with mounted(tmp_path / "small", megabytes=2) as disk:
        monkeypatch.setattr(fetching, "KEPT_FREE_BYTES", -(1 << 40))
        with pytest.raises(DownloadFailed, match="No space left"):
            pull(hub, disk.path / "model.gguf")
        assert nothing_but_parts(disk.path)


def test_a_kill_in_the_middle_leaves_a_part_from_which_the_next_run_goes_on(hub, tmp_path):
    hub.faults.pause_s = 0.02
    program = textwrap.dedent(f"""
        import threading
        from pathlib import Path
        from appliance.hub.fetch import fetch
        from appliance.hub.part import Watch
        from appliance.hub.remote import Hub
        from appliance.settings import HubSettings
        from appliance.store.digests import Digests
        hub = Hub(HubSettings(endpoint={hub.endpoint!r}))
        file = hub.find({REPO!r}, {PATH!r}, None)
        watch = Watch(threading.Event(), lambda have: print(have, flush=True))
        target = Path({str(tmp_path / "model.gguf")!r})
        fetch(hub, file, target, watch=watch, digests=Digests(None))
    """)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "none")}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, env=environment
    ) as process:
        for line in process.stdout:
            if int(line) > 1_200_000:
                process.kill()
                break
    assert nothing_but_parts(tmp_path)
    [part] = tmp_path.glob("*.part")
    assert part.stat().st_size >= 1_000_000
    before, hub.faults.pause_s = hub.sent, 0.0
    have = part.stat().st_size
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert hub.sent - before <= len(CONTENT) - have + 4 * 65_536


def test_a_body_that_is_compressed_on_the_way_is_refused_before_it_is_kept(hub, tmp_path):
    hub.faults.encoding = "gzip"
    with pytest.raises(DownloadFailed, match=r"sent compressed \(gzip\)"):
        pull(hub, tmp_path / "model.gguf")
    assert len(hub.asked()) == 1
    [part] = tmp_path.glob("*.part")
    assert part.stat().st_size == 0


def test_a_range_of_another_file_than_was_said_is_not_appended(hub, tmp_path):
    hub.faults.cut_at, hub.faults.range_total = [1_000_000], len(CONTENT) + 1
    with pytest.raises(DownloadFailed, match=r"has 3000001 bytes of it now, and said 3000000"):
        pull(hub, tmp_path / "model.gguf")
    [part] = tmp_path.glob("*.part")
    assert part.read_bytes() == CONTENT[:1_000_000]


def test_a_range_that_begins_elsewhere_is_asked_for_again_and_given_up(hub, tmp_path):
    hub.faults.cut_at, hub.faults.range_shift = [1_000_000], 5
    with pytest.raises(DownloadFailed, match="another part of the file"):
        pull(hub, tmp_path / "model.gguf")
    assert len(hub.asked()) == 6
    hub.faults.range_shift = 0
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (CONTENT + b"more", "sends more than it said"),
        (CONTENT[:2_000_000], "shorter than it said"),
        (CONTENT[::-1], "should be"),
    ],
    ids=["grows", "shrinks", "is another"],
)
def test_a_file_that_changes_between_what_is_said_of_it_and_its_body_never_gets_a_name(
    hub, tmp_path, content, reason
):
    theirs = client(hub)
    file = theirs.find(REPO, PATH, None)
    hub.put(REPO, PATH, content)
    watch = Watch(threading.Event())
    with pytest.raises(DownloadFailed, match=reason):
        fetch(theirs, file, tmp_path / "model.gguf", watch=watch, digests=Digests(None))
    assert nothing_but_parts(tmp_path)
    hub.put(REPO, PATH, CONTENT)
    while not (tmp_path / "model.gguf").exists():
        with suppress(DownloadFailed):  # the first may find that what it went on with is wrong
            pull(hub, tmp_path / "model.gguf")
        assert len(hub.asked()) < 12
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_a_hub_that_sends_us_in_circles_is_given_up(hub, tmp_path):
    hub.faults.loop = True
    with pytest.raises(DownloadFailed, match="from place to place"):
        pull(hub, tmp_path / "model.gguf")
    assert len(hub.asked()) == 5


def test_a_hub_that_is_slow_is_waited_for_however_long_it_takes(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "STALLED_S", 0.01)
    hub.faults.pause_s = 0.005
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert len(hub.asked()) == 1


def test_a_hub_that_sends_next_to_nothing_is_given_up(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "STALLED_S", 0.05)
    hub.faults.pause_s, hub.faults.piece = 0.01, 100
    with pytest.raises(DownloadFailed, match="sends next to nothing; gave up after 6 tries"):
        pull(hub, tmp_path / "model.gguf")
    assert len(hub.asked()) == 6
    [part] = tmp_path.glob("*.part")
    assert part.stat().st_size > 0


def test_a_hub_that_falls_silent_is_given_up_and_gone_on_with_later(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.hub.remote.TIMEOUT_S", 0.2)
    hub.faults.pause_s, hub.faults.piece = 1.0, 1_000
    with pytest.raises(DownloadFailed, match=r"timed out\..*; gave up after 6 tries"):
        pull(hub, tmp_path / "model.gguf")
    hub.faults.pause_s, hub.faults.piece = 0.0, 65_536
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
