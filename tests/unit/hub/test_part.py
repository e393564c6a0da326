"""Parts on a disk that fails: it is said at once, never asked of the hub again, and no byte is lost."""

import errno
import os
import random
import threading

import pytest

from appliance.core.errors import DownloadFailed
from appliance.hub import fetch as fetching
from appliance.hub.fetch import fetch
from appliance.hub.part import Watch
from appliance.hub.remote import Hub
from appliance.settings import HubSettings
from appliance.store.digests import Digests
from tests.hub import standing_in
from tests.money.disks import mounted

REPO, PATH = "owner/model-GGUF", "model-Q8_0.gguf"
CONTENT = random.Random(5).randbytes(2_000_000)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "PAUSES_S", (0.01,) * 5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with standing_in() as (hub, endpoint):
        hub.put(REPO, PATH, CONTENT)
        hub.client = Hub(HubSettings(endpoint=endpoint))
        yield hub


def pull(hub, target, progress=lambda _: None):
    file = hub.client.find(REPO, PATH, None)
    watch = Watch(threading.Event(), progress)
    fetch(hub.client, file, target, watch=watch, digests=Digests(None))


@pytest.fixture
def writes(monkeypatch):
    """A disk that writes at most some bytes at once, and fails at some byte of the file."""

    class Disk:
        at = 10**9
        error = errno.EIO
        most = 10**9

    def pwrite(handle, content, offset):
        room = min(Disk.most, Disk.at - offset)
        if room <= 0:
            raise OSError(Disk.error, os.strerror(Disk.error))
        return real(handle, content[:room], offset)

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    return Disk


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_an_error_of_this_disk_is_final_names_path_and_reason_and_keeps_what_is_written(
    hub, tmp_path, writes, error
):
    writes.at, writes.error = 1_234_567, error
    seen = []
    with pytest.raises(DownloadFailed) as refusal:
        pull(hub, tmp_path / "model.gguf", seen.append)
    [part] = tmp_path.glob("*.part")
    message = refusal.value.message
    assert message.startswith(f"{part}: {os.strerror(error)}")
    assert ("bytes are free" in message) == (error == errno.ENOSPC)
    assert "\n" not in message
    assert len(hub.asked()) == 1  # the hub is not to blame, and is not asked again
    assert part.read_bytes() == CONTENT[:1_234_567]
    writes.at = 10**9
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert hub.asked()[-1][2] == "bytes=1234567-"
    assert max(seen) <= 1_234_567


def test_a_write_that_takes_less_than_it_was_given_is_gone_on_with(hub, tmp_path, writes):
    writes.most = 1_000
    seen = []
    pull(hub, tmp_path / "model.gguf", seen.append)
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert seen[-1] == len(CONTENT)


def test_what_stands_behind_the_good_bytes_is_cut_before_the_next_try(hub, tmp_path, monkeypatch):
    hub.faults.cut_at = [500_000]
    cut = []
    real = os.ftruncate
    monkeypatch.setattr(
        os, "ftruncate", lambda handle, size: (cut.append(size), real(handle, size))
    )
    pull(hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert cut == [0, 500_000]


@pytest.mark.parametrize("call", ["fsync", "open", "unlink"])
def test_no_error_of_another_call_is_blamed_on_the_hub_either(hub, tmp_path, monkeypatch, call):
    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if call == "unlink":
        hub.faults.flip = 7
        monkeypatch.setattr("pathlib.Path.unlink", fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(DownloadFailed, match="Input/output error"):
        pull(hub, tmp_path / "model.gguf")
    assert len(hub.asked()) <= 1
    assert not (tmp_path / "model.gguf").exists()


def test_a_disk_that_fills_up_says_how_much_is_free_and_goes_on_once_there_is_room(
    hub, tmp_path, monkeypatch
):
    monkeypatch.setattr(fetching, "KEPT_FREE_BYTES", -(1 << 40))
    with mounted(tmp_path / "small", megabytes=3) as disk:
        disk.fill()
        os.truncate(disk.path / "filler", 2_000_000)
        with pytest.raises(DownloadFailed, match=r"No space left on device .* bytes are free"):
            pull(hub, disk.path / "model.gguf")
        disk.free()
        pull(hub, disk.path / "model.gguf")
        assert (disk.path / "model.gguf").read_bytes() == CONTENT
        first = int(hub.asked()[-1][2].removeprefix("bytes=").removesuffix("-"))
        assert first > 900_000


def test_a_disk_that_is_read_only_is_one_line_before_the_hub_is_asked(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "KEPT_FREE_BYTES", 0)
    with mounted(tmp_path / "small", megabytes=3) as disk:
        disk.remount("ro")
        with pytest.raises(DownloadFailed, match="Read-only file system"):
            pull(hub, disk.path / "model.gguf")
        assert hub.asked() == []


def test_what_is_hashed_is_the_file_and_not_what_was_received(hub, tmp_path, monkeypatch):
    real = os.pwrite

    def damaging(handle, content, offset):
        """Write a wrong byte, as a disk does that lies."""
        wrong = bytearray(content)
        if offset <= 700_000 < offset + len(wrong):
            wrong[700_000 - offset] ^= 1
        return real(handle, wrong, offset)

    monkeypatch.setattr(os, "pwrite", damaging)
    with pytest.raises(DownloadFailed, match="should be"):
        pull(hub, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == []
