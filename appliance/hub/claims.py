"""Claims: of downloads that want the same content, one fetches it and the others wait.

Owns which download works on which content. One that waits shows the progress of the one that works,
and is next when that ends, however it ends: what is on the disk then is left to it.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.hub.downloads import Download

LOOK_AGAIN_S = 0.1
"""How often one that waits looks whether it was cancelled, and how far the other is."""


class Claims:
    """Who works on what; contents are named by their digests."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: dict[str, Download] = {}
        self._waiting: Counter[str] = Counter()

    def __repr__(self) -> str:
        """Count what is worked on."""
        return f"<Claims [{len(self._holders)} held | {self._waiting.total()} waiting]>"

    def is_awaited(self, digest: str) -> bool:
        """Return whether another download waits for this content."""
        with self._changed:
            return self._waiting[digest] > 0

    @contextmanager
    def hold(self, digest: str, download: Download) -> Iterator[None]:
        """Let nobody else work on this content until the block ends; waits for whoever does.

        Raises:
            DownloadCancelled: the download was cancelled while it waited.
        """
        self._take(digest, download)
        try:
            yield
        finally:
            with self._changed:
                del self._holders[digest]
                self._changed.notify_all()

    def _take(self, digest: str, download: Download) -> None:
        with self._changed:
            self._waiting[digest] += 1
            try:
                while digest in self._holders:
                    download.require_wanted()
                    download.show(self._holders[digest])
                    self._changed.wait(LOOK_AGAIN_S)
                self._holders[digest] = download
            finally:
                self._waiting[digest] -= 1
                if not self._waiting[digest]:
                    del self._waiting[digest]
        download.enter("fetching")
