"""Downloads: run downloads in the background, at most one for each model, with their progress.

Keeps the thread, state and rate of each download. It does not depend on the hub or the catalogue:
the function that downloads is an argument. It uses threads rather than asyncio tasks, because a
command without a server has an event loop for itself only, and a download can outlive it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from appliance.core import ids
from appliance.core.clock import Clock
from appliance.core.errors import (
    ApplianceError,
    DownloadCancelled,
    DownloadNotFound,
    InvalidRequest,
)

log = logging.getLogger("gigarouter.hub")

State = Literal["waiting", "fetching", "checking", "trying", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")

RUNNING_MAX = 3
"""Downloads that run at the same time; further ones wait."""
WAITING_MAX = 50
ENDED_KEPT = 50
"""Ended downloads that can still be looked up."""
RATE_OVER_S = 5.0
"""The rate is measured over this many last seconds."""
NS_PER_S = 1e9


@dataclass(slots=True)
class Download:
    """One download.

    Its thread writes the fields, and any thread may read them without a lock: each is replaced by
    one assignment. Whether it is cancelled or the file gets its name is decided under a lock.
    """

    id: str
    model: str
    clock: Clock
    state: State = "waiting"
    bytes_total: int = 0
    bytes_have: int = 0
    error: str | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    _samples: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=512))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_kept: bool = False

    @property
    def is_over(self) -> bool:
        """Return whether it has ended: done, failed or cancelled."""
        return self.state in ENDED

    def enter(self, state: State, *, error: str | None = None) -> None:
        """Begin another state; one that has ended stays so."""
        with self._lock:
            if not self.is_over and state != self.state:
                self._samples.clear()
                self.error, self.state = error, state

    def cancel(self) -> None:
        """Cancel it, unless the file is being given its name; its thread ends it soon."""
        with self._lock:
            if self._is_kept or self.is_over:
                return
            self.cancelled.set()

    def keep(self) -> None:
        """Decide that the file gets its name: from now on it cannot be cancelled.

        Raises:
            DownloadCancelled: it was cancelled before.
        """
        with self._lock:
            self._is_kept = not self.cancelled.is_set()
        self.require_wanted()

    def require_wanted(self) -> None:
        """Go on.

        Raises:
            DownloadCancelled: it was cancelled.
        """
        if self.cancelled.is_set():
            raise DownloadCancelled

    def show(self, other: "Download") -> None:
        """Show another download's progress: this one waits for it."""
        self.enter("waiting" if other.is_over else other.state)
        self.expect(other.bytes_total)
        self.progress(other.bytes_have)

    def expect(self, total: int) -> None:
        """Set the total number of bytes."""
        self.bytes_total = total

    def progress(self, have: int) -> None:
        """Set the number of bytes on the disk."""
        self.bytes_have = have
        now_ns = self.clock.monotonic_ns()
        if not self._samples or now_ns - self._samples[-1][0] > NS_PER_S / 20:
            self._samples.append((now_ns, have))

    def rate(self) -> float:
        """Return bytes a second over the last seconds; 0.0 if none were received."""
        now_ns = self.clock.monotonic_ns()
        recent = [s for s in list(self._samples) if now_ns - s[0] <= RATE_OVER_S * NS_PER_S]
        if len(recent) < 2 or self.is_over:  # noqa: PLR2004 - a rate needs two points
            return 0.0
        (first_ns, first), (last_ns, last) = recent[0], recent[-1]
        return max(0, last - first) / max(1e-3, (last_ns - first_ns) / NS_PER_S)

    def eta_s(self) -> int | None:
        """Return the seconds to the end at the present rate, or None if the rate is 0."""
        rate = self.rate()
        return round((self.bytes_total - self.bytes_have) / rate) if rate else None


class Downloads:
    """All downloads of one process, running, waiting and ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._downloads: dict[str, Download] = {}
        self._works: dict[str, Callable[[Download], None]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._closed = False

    def __repr__(self) -> str:
        """Return the number of running and of known downloads."""
        running = sum(not download.is_over for download in self._downloads.values())
        return f"<Downloads [{running} running or waiting | {len(self._downloads)} known]>"

    def start(self, model: str, work: Callable[[Download], None]) -> Download:
        """Start a download, or return the one of this model that has not ended.

        Raises:
            InvalidRequest: too many downloads wait.
        """
        with self._lock:
            for download in self._downloads.values():
                if download.model == model and not download.is_over:
                    return download
            if len(self._works) >= WAITING_MAX:
                raise InvalidRequest(f"{WAITING_MAX} downloads wait already", param="id")
            download = Download(ids.download_id(), model, self._clock)
            self._downloads[download.id] = download
            self._works[download.id] = work
            self._forget_old()
            self._begin_next()
        return download

    def get(self, download_id: str) -> Download:
        """Return the download with this id.

        Raises:
            DownloadNotFound: there is none, or it ended long ago.
        """
        try:
            return self._downloads[download_id]
        except KeyError:
            raise DownloadNotFound(download_id) from None

    def all(self) -> list[Download]:
        """Return all known downloads, oldest first."""
        with self._lock:
            return list(self._downloads.values())

    def cancel(self, download_id: str) -> Download:
        """Cancel a download; its bytes are kept for the next download of the same file.

        Raises:
            DownloadNotFound: there is none with this id.
        """
        download = self.get(download_id)
        download.cancel()
        with self._lock:
            if self._works.pop(download_id, None) is not None:
                download.enter("cancelled")
        return download

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Cancel all downloads and wait for their threads, each for at most `timeout_s` seconds."""
        with self._lock:
            self._closed = True
        for download in self.all():
            self.cancel(download.id)
        for thread in list(self._threads.values()):
            thread.join(timeout_s)

    def _begin_next(self) -> None:
        while self._works and len(self._threads) < RUNNING_MAX and not self._closed:
            download_id = next(iter(self._works))
            work = self._works.pop(download_id)
            thread = threading.Thread(
                target=self._run,
                args=(self._downloads[download_id], work),
                name=download_id,
                daemon=True,
            )
            self._threads[download_id] = thread
            thread.start()

    def _run(self, download: Download, work: Callable[[Download], None]) -> None:
        download.enter("fetching")
        try:
            work(download)
        except DownloadCancelled as error:
            download.enter("cancelled", error=error.message)
        except ApplianceError as error:
            download.enter("failed", error=error.message)
            log.warning("the download of %s failed: %s", download.model, error.message)
        except Exception as error:
            download.enter("failed", error=f"unexpected: {error!r}")
            log.exception("the download of %s failed", download.model)
        else:
            download.enter("done")
            log.info("%s is here", download.model)
        finally:
            with self._lock:
                del self._threads[download.id]
                self._begin_next()

    def _forget_old(self) -> None:
        ended = [download.id for download in self._downloads.values() if download.is_over]
        for download_id in ended[:-ENDED_KEPT]:
            del self._downloads[download_id]
