"""Log: the tab with the server's log and its health check.

Owns both panes. It sends no requests: the console passes it each answer.
"""

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, RichLog, Static

from appliance.wire.doctor import Report
from appliance.wire.logs import LogLine, LogView
from tui.inert import plain
from tui.screens.pane import TALL_FROM

LINES_KEPT = 2000
LINE_WIDTH = 400
LEVELS = ("all", "warning", "error")
SEVERE = {"warning": ("warning", "error", "critical"), "error": ("error", "critical")}
MARKS = {"ok": ("\u2713", "green"), "warn": ("!", "bold yellow"), "fail": ("\u2717", "bold red")}


class Log(Widget):
    """The findings of the health check above the lines of the log."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter"),
        Binding("l", "level", "Level", tooltip="All lines, warnings and worse, errors"),
        Binding("c", "check", "Check again"),
    ]

    class CheckWanted(Message):
        """The person asked for a new health check."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=LINES_KEPT)
        self._level = LEVELS[0]
        self.cursor = ""
        """Cursor of the newest line that was received; empty: none was."""

    def compose(self) -> ComposeResult:
        """Lay out findings, the filter and the lines."""
        yield Static("looking\u2026", id="checks", classes="panel")
        yield Input(placeholder="/ filters the log", id="filter", compact=True)
        yield RichLog(id="log", max_lines=LINES_KEPT, wrap=False, markup=False, highlight=False)

    def on_mount(self) -> None:
        """Title the panel."""
        self.query_one("#checks").border_title = "doctor"

    def action_filter(self) -> None:
        """Focus the filter."""
        self.query_one("#filter", Input).focus()

    def action_level(self) -> None:
        """Switch to the next level: all lines, warnings and worse, errors."""
        self._level = LEVELS[(LEVELS.index(self._level) + 1) % len(LEVELS)]
        self.notify({"all": "every line"}.get(self._level, f"{self._level}s and worse"))
        self._draw_again()

    def action_check(self) -> None:
        """Ask for a new health check."""
        self.query_one("#checks", Static).update("looking\u2026")
        self.post_message(self.CheckWanted())

    @on(Input.Submitted, "#filter")
    def filter_done(self) -> None:
        """Focus the lines."""
        self.query_one("#log").focus()

    @on(Input.Changed, "#filter")
    def filtered(self) -> None:
        """Draw the lines that contain the filter's text."""
        self._draw_again()

    def show(self, view: LogView) -> None:
        """Draw new lines; those of a restarted server replace the old ones."""
        if self.cursor and run_of(view.cursor) != run_of(self.cursor):
            self._lines.clear()
            self._draw_again()
        self.cursor = view.cursor
        self._lines.extend(view.data)
        self._write(view.data)

    def show_file(self, lines: Sequence[str]) -> None:
        """Draw the end of the log file, for a server that no longer answers."""
        log = self.query_one("#log", RichLog)
        log.clear()
        for line in lines:
            log.write(Text(plain(line, width=LINE_WIDTH)))
        self._lines.clear()
        self.cursor = ""

    def lost(self, reason: str) -> None:
        """Take back the findings of a server that no longer answers."""
        mark, style = MARKS["fail"]
        text = Text(f"{mark} ", style=style)
        text.append(f"{'server':8} {plain(reason)}", "not bold default")
        self.query_one("#checks", Static).update(text)

    def _draw_again(self) -> None:
        self.query_one("#log", RichLog).clear()
        self._write(self._lines)

    def _write(self, lines: Sequence[LogLine] | deque[LogLine]) -> None:
        log = self.query_one("#log", RichLog)
        wanted = self.query_one("#filter", Input).value.lower()
        for line in lines:
            text = f"{line.at[11:19]} {line.level:8} {line.message}"
            if wanted in text.lower() and line.level in SEVERE.get(self._level, (line.level,)):
                style = "bold red" if line.level in SEVERE["error"] else ""
                for part in text.splitlines():
                    log.write(Text(plain(part, width=LINE_WIDTH), style=style))

    def check(self, report: Report) -> None:
        """Draw the findings with their remedies, failures and warnings first."""
        text = Text()
        wrong = [each for each in report.data if each.status != "ok"]
        well = [each for each in report.data if each.status == "ok"]
        # On a low terminal passed checks share one line.
        is_short = self.app.size.height < TALL_FROM
        for each in wrong if is_short else [*wrong, *well]:
            mark, style = MARKS[each.status]
            text.append(f"{mark} ", style=style)
            text.append(f"{plain(each.name):8} {plain(each.said)}")
            if each.fix:
                text.append(f"  \u2192 {plain(each.fix)}", style="bold")
            text.append("\n")
        if is_short and well:
            text.append(f"{MARKS['ok'][0]} ", style=MARKS["ok"][1])
            text.append(f"{', '.join(plain(each.name) for each in well)}: well\n")
        self.query_one("#checks", Static).update(text)


def run_of(cursor: str) -> str:
    """Return the run of the server that a cursor belongs to."""
    return cursor.partition("-")[0]
