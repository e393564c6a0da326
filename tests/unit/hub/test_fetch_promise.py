"""The promise of a fetch, over drawn histories of faults.

A name is only ever given to bytes with the right digest, and a download of a right file ends done
once faults end. A history is a list of attempts, each with the hub's faults, the disk's, a
cancellation at some byte, or the end of the process, which forgets all but what is on the disk.
"""

import errno
import os
import random
import threading
from contextlib import suppress

import pytest

from appliance.core.errors import DownloadCancelled, DownloadFailed
from appliance.hub import fetch as fetching
from appliance.hub.fetch import fetch
from appliance.hub.part import Watch
from appliance.hub.remote import Hub
from appliance.settings import HubSettings
from appliance.store.digests import Digests
from tests.hub import Faults, standing_in

REPO, PATH = "owner/model-GGUF", "model-Q8_0.gguf"
SIZE = 300_000
HISTORIES, ATTEMPTS = 60, 6


class End(BaseException):
    """The end of the process."""


def drawn(chance):
    """Return faults of the hub."""
    faults = Faults(piece=chance.choice([1_000, 7_777, 65_536]))
    for kind in chance.sample(range(8), k=chance.randint(0, 3)):
        if kind == 0:
            faults.cut_at = [chance.randrange(SIZE) for _ in range(chance.randint(1, 8))]
        elif kind == 1:
            faults.statuses = chance.choices([408, 429, 500, 503, 403, 404], k=chance.randint(1, 8))
            faults.retry_after = chance.choice(["0", "1", "soon", "99999999999"])
        elif kind == 2:
            faults.flip = chance.randrange(SIZE)
        elif kind == 3:
            faults.wrong_length = True
        elif kind == 4:
            faults.ignore_range = True
        elif kind == 5:
            faults.range_shift = chance.choice([0, 1, 1_000])
        elif kind == 6:
            faults.range_total = chance.choice([SIZE, SIZE + 1])
        else:
            faults.encoding = chance.choice(["", "gzip"])
    return faults


class Attempt:
    """One try, and what is done to it from this side."""

    def __init__(self, chance):
        self.cancelled = threading.Event()
        self.cancel_at = chance.choice([None, None, chance.randrange(SIZE)])
        self.cancel_check_at = chance.choice([None, None, None, 0])
        self.end_at = chance.choice([None, None, None, chance.randrange(SIZE)])
        self.full_at = chance.choice([None, None, None, chance.randrange(SIZE)])
        self.error = chance.choice([errno.ENOSPC, errno.EIO])
        self.most = chance.choice([10**9, 10**9, 999])

    def progress(self, have):
        if self.end_at is not None and have > self.end_at:
            raise End
        if self.cancel_at is not None and have > self.cancel_at:
            self.cancelled.set()

    def checking(self, _):
        if self.cancel_check_at is not None:
            self.cancelled.set()

    def pwrite(self, real):
        def write(handle, content, offset):
            room = self.most if self.full_at is None else min(self.most, self.full_at - offset)
            if room <= 0:
                raise OSError(self.error, os.strerror(self.error))
            return real(handle, content[:room], offset)

        return write


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_only_right_bytes_get_the_name_and_a_right_file_arrives_once_faults_end(
    seed, tmp_path, monkeypatch
):
    chance = random.Random(seed)
    content = chance.randbytes(SIZE)
    monkeypatch.setattr(fetching, "PAUSES_S", (0.001,) * 5)
    monkeypatch.setattr(fetching, "PAUSE_MAX_S", 0.002)
    monkeypatch.setattr(fetching, "KEPT_FREE_BYTES", 0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    real, target = os.pwrite, tmp_path / "model.gguf"
    digests = Digests(tmp_path / "digests.json")
    with standing_in() as (hub, endpoint):
        hub.put(REPO, PATH, content, large=bool(seed % 5))
        theirs = Hub(HubSettings(endpoint=endpoint))
        file = theirs.find(REPO, PATH, None)
        for _ in range(ATTEMPTS):
            attempt, hub.faults = Attempt(chance), drawn(chance)
            monkeypatch.setattr(os, "pwrite", attempt.pwrite(real))
            watch = Watch(attempt.cancelled, attempt.progress, attempt.checking)
            before = target.exists()
            try:
                fetch(theirs, file, target, watch=watch, digests=digests)
            except (DownloadFailed, DownloadCancelled, End) as end:
                assert target.exists() == before
                if isinstance(end, End):
                    digests = Digests(tmp_path / "digests.json")
            else:
                assert target.read_bytes() == content
                target.unlink()
            parts = sorted(path.name for path in tmp_path.glob("*.part"))
            assert parts in ([], [f"{file.digest}.part"])
            assert all(path.stat().st_size <= SIZE for path in tmp_path.glob("*.part"))
        hub.faults = Faults()
        monkeypatch.setattr(os, "pwrite", real)
        watch = Watch(threading.Event())
        # What an earlier attempt was sent wrong is found at the end: once, never twice.
        with suppress(DownloadFailed):
            fetch(theirs, file, target, watch=watch, digests=digests)
        if not target.exists():
            fetch(theirs, file, target, watch=watch, digests=digests)
        assert target.read_bytes() == content
        assert not list(tmp_path.glob("*.part"))
