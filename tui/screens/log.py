"""Log: the server's log, filtered, and what a look at its health finds.

Owns both panes. Reads the log's file; a remote server's stays over there.
"""

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, RichLog, Static

from appliance.wire.engines import EngineList
from appliance.wire.keys import KeyView
from appliance.wire.stats import Stats
from tui import figures
from tui.inert import plain
from tui.server import LocalServer

LINES_SHOWN = 500
LITTLE_BYTES = 1_000_000_000
"""Of free memory."""


class Log(Widget):
    """Checks over lines."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("slash", "filter", "Filter")]

    def __init__(self, server: LocalServer | None) -> None:
        super().__init__()
        self._server = server
        self._lines: list[str] = []

    def compose(self) -> ComposeResult:
        """Lay out checks, the filter and lines."""
        yield Static(id="checks")
        yield Input(placeholder="/ filters the log", id="filter", compact=True)
        yield RichLog(id="log", max_lines=LINES_SHOWN, wrap=False, markup=False, highlight=False)

    def action_filter(self) -> None:
        """Go to the filter."""
        self.query_one("#filter", Input).focus()

    @on(Input.Changed, "#filter")
    def filtered(self) -> None:
        """Draw the lines that hold what is asked for."""
        self._lines = []
        self.look()

    def look(self) -> None:
        """Read what is new in the log."""
        if self._server is None:
            lines = ["this console is attached to a remote server: its log is over there"]
        else:
            lines = self._server.tail()
        if lines == self._lines:
            return
        self._lines = lines
        wanted = self.query_one("#filter", Input).value.lower()
        log = self.query_one("#log", RichLog)
        log.clear()
        for line in lines[-LINES_SHOWN:]:
            if wanted in line.lower():
                style = "bold red" if " ERROR " in line or " CRITICAL " in line else ""
                log.write(Text(plain(line, width=400), style=style))

    def check(self, stats: Stats, engines: EngineList, keys: list[KeyView], url: str) -> None:
        """Draw what a look at the server's health finds, and what to do."""
        text = Text()
        for good, finding in findings(stats, engines, keys, url):
            text.append("\u2713 " if good else "! ", style="" if good else "bold red")
            text.append(f"{finding}\n")
        self.query_one("#checks", Static).update(text)


def findings(
    stats: Stats, engines: EngineList, keys: list[KeyView], url: str
) -> list[tuple[bool, str]]:
    """Return whether each thing is well, and what it is or what to do."""
    loopback = "127.0.0.1" in url or "localhost" in url
    live = [key for key in keys if key.revoked is None]
    limit = engines.memory_max
    free = min((d.free for d in engines.devices if d.free), default=0)
    found = [
        (True, f"gigarouter {stats.version} answers, up {figures.duration(stats.uptime_s)}"),
        (bool(live), f"{len(live)} live keys" if live else "no live key: mint one (Keys, m)"),
        (loopback or url.startswith("https"),
         "keys cannot be read on the network" if loopback or url.startswith("https")
         else "open without TLS: keys can be read on the network (LAN, x closes it)"),
        (limit is None or stats.memory_taken < 0.9 * limit,
         f"models take {figures.size(stats.memory_taken)}"
         + (f" of {figures.size(limit)}" if limit else "")),
        (free == 0 or free > LITTLE_BYTES,
         f"{figures.size(free)} of memory are free" if free > LITTLE_BYTES
         else "little memory is free: unload a model (Models, l)"),
    ]  # fmt: skip
    found += [
        (False, f"{plain(e.model)}: {plain(e.reason or '')}")
        for e in engines.data
        if e.state == "failed"
    ]
    refused = stats.errors_per_s
    found.append((refused < 1, f"{figures.number(refused)} refused calls a second"))
    return found
