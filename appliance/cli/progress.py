"""Progress: how far something is, on standard error.

A terminal has one line, which is rewritten; elsewhere each stage has a line of its own.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.client import verbs
from appliance.client.watch import Watch
from appliance.core.text import visible
from appliance.wire.additions import AdditionList
from appliance.wire.downloads import DownloadView
from appliance.wire.models import LengthView, TrialRunView

BAR = 24
"""Characters of a progress bar."""
STAGES = {
    "look": "reading what it is",
    "copy": "copying",
    "convert": "converting",
    "hash": "hashing",
    "try": "trying",
    "swap": "putting it in place",
}

ENDED = ("done", "failed", "cancelled")
"""States of a download that is over."""


class _Line:
    """The line of what is done now."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self.is_rewritten = self._stream.isatty()
        self._said = ""

    def show(self, stage: str, share: str = "") -> None:
        """Say what is done, and how much of it; without a terminal, only what is new."""
        if self.is_rewritten:
            # A line that wraps could not be rewritten.
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K{f'{stage}{share}'[:width]}")
        elif stage != self._said:
            self._said = stage
            self._write(f"{stage}\n")

    def keep(self, text: str) -> None:
        """Say something that stays."""
        self.clear()
        self._write(f"{text}\n")

    def clear(self) -> None:
        if self.is_rewritten:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextmanager
def _line() -> Iterator[_Line]:
    line = _Line()
    try:
        yield line
    finally:
        line.clear()


@contextmanager
def addition(source: str, model_id: str | None) -> Iterator[Watch[AdditionList]]:
    """Yield the watch of a model that is added from `source`, as `model_id` if that was given."""
    with _line() as line:

        def show(now: AdditionList) -> None:
            for each in now.data:
                if each.source == source and model_id in (None, each.model) and each.stage:
                    stage = STAGES.get(each.stage, each.stage)
                    line.show(f"{visible(each.model)}: {stage}", _share(each.done, each.total))

        yield Watch(verbs.LIST_ADDITIONS, show)


@contextmanager
def trial(name: str) -> Iterator[Watch[TrialRunView]]:
    """Yield the watch of a trial; each length is said once, as soon as it is known."""
    with _line() as line:
        said = 0

        def show(now: TrialRunView) -> None:
            nonlocal said
            for each in now.lengths[said:]:
                line.keep(f"{each.tokens:,} tokens: {length(each)}")
            said = max(said, len(now.lengths))
            if now.step and line.is_rewritten:
                line.show(f"{visible(now.model)}: {visible(now.step)}")

        yield Watch(verbs.WATCH_TRIAL, show, (name,))


@contextmanager
def download(view: DownloadView) -> Iterator[Callable[[DownloadView], None]]:
    """Yield a function that draws a download's progress."""
    with _line() as line:

        def show(now: DownloadView) -> None:
            share = _share(now.bytes, now.bytes_total)
            if now.rate:
                share += f", {now.rate / 1e6:.1f} MB/s"
            if now.eta_s is not None:
                share += f", {now.eta_s // 60}:{now.eta_s % 60:02d} left"
            if now.state not in ENDED:
                line.show(f"{visible(now.model)}: {now.state}", share)

        show(view)
        yield show


@contextmanager
def rows() -> Iterator[Callable[[int, float, float], None]]:
    """Yield a function that draws how many rows are done, which share, and how many a second."""
    with _line() as line:

        def show(done: int, share: float, rate: float) -> None:
            bar = f" [{'#' * round(share * BAR):<{BAR}}] {share:4.0%}" if share else ""
            if line.is_rewritten:
                line.show(f"{done:,} rows", f"{bar}, {rate:,.0f} a second")

        yield show


def length(found: LengthView) -> str:
    """Return what a trial found of one length, in a few words."""
    return f"{found.seconds:.2f} s, {found.peak_bytes / 1e6:,.0f} MB"


def _share(done: int, total: int) -> str:
    """Return how much of all bytes is done; empty where that is not known."""
    if not total:
        return ""
    share = done / total
    return f" [{'#' * round(share * BAR):<{BAR}}] {share:4.0%} of {total / 1e6:,.0f} MB"
