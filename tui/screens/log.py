"""Log: the server's log, filtered, and what a look at its health finds.

Owns both panes. It asks nobody: the console hands it what it has.
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
    """Checks over lines."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter"),
        Binding("l", "level", "Level", tooltip="All lines, warnings and worse, errors"),
        Binding("c", "check", "Check again"),
    ]

    class CheckWanted(Message):
        """The server's health shall be looked at now."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=LINES_KEPT)
        self._level = LEVELS[0]
        self.cursor = ""
        """Of the newest line that is known."""

    def compose(self) -> ComposeResult:
        """Lay out checks, the filter and lines."""
        yield Static("looking\u2026", id="checks", classes="panel")
        yield Input(placeholder="/ filters the log", id="filter", compact=True)
        yield RichLog(id="log", max_lines=LINES_KEPT, wrap=False, markup=False, highlight=False)

    def on_mount(self) -> None:
        """Name the panel."""
        self.query_one("#checks").border_title = "doctor"

    def action_filter(self) -> None:
        """Go to the filter."""
        self.query_one("#filter", Input).focus()

    def action_level(self) -> None:
        """Show all lines, or only what is at least so bad."""
        self._level = LEVELS[(LEVELS.index(self._level) + 1) % len(LEVELS)]
        self.notify({"all": "every line"}.get(self._level, f"{self._level}s and worse"))
        self._draw_again()

    def action_check(self) -> None:
        """Look at the server's health now."""
        self.query_one("#checks", Static).update("looking\u2026")
        self.post_message(self.CheckWanted())

    @on(Input.Submitted, "#filter")
    def filter_done(self) -> None:
        """Go back to the lines."""
        self.query_one("#log").focus()

    @on(Input.Changed, "#filter")
    def filtered(self) -> None:
        """Draw the lines that hold what is asked for."""
        self._draw_again()

    def show(self, view: LogView) -> None:
        """Draw what is new in the log; a server that began again begins anew."""
        if self.cursor and run_of(view.cursor) != run_of(self.cursor):
            self._lines.clear()
            self._draw_again()
        self.cursor = view.cursor
        self._lines.extend(view.data)
        self._write(view.data)

    def show_file(self, lines: Sequence[str]) -> None:
        """Draw the end of a log file, for a server that no longer answers."""
        log = self.query_one("#log", RichLog)
        log.clear()
        for line in lines:
            log.write(Text(plain(line, width=LINE_WIDTH)))
        self._lines.clear()
        self.cursor = ""

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
        """Draw what a look at the server's health finds, what is wrong first, and what to do."""
        text = Text()
        wrong = [each for each in report.data if each.status != "ok"]
        well = [each for each in report.data if each.status == "ok"]
        # Where there is little room, what is well needs no line of its own.
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
    """Return which run of a server a cursor is of."""
    return cursor.partition("-")[0]
