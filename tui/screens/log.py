"""Log: the tab with the server's log and its health check.

Owns both panes. It sends no requests: the console passes it each answer.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from appliance.wire.doctor import Report
from appliance.wire.logs import LogLine, LogView
from tui.inert import plain
from tui.screens.pane import TALL_FROM
from tui.widgets.scrollback import Scrollback

LINES_KEPT = 2000
LINE_WIDTH = 400
SAID_WIDTH = 20
"""Characters of a filter that are repeated."""
LEVELS = ("all", "warning", "error")
SEVERE = {"warning": ("warning", "error", "critical"), "error": ("error", "critical")}
MARKS = {"ok": ("\u2713", "green"), "warn": ("!", "bold yellow"), "fail": ("\u2717", "bold red")}


class Log(Widget):
    """The findings of the health check above the lines of the log."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", tooltip="Only lines with a text"),
        Binding("l", "level", "Level", tooltip="All lines, warnings and worse, errors"),
        Binding("f", "find", "Find", tooltip="Go to a text; n and N go on"),
        Binding("n", "step(1)", "Next", show=False, tooltip="The next line with it"),
        Binding("N", "step(-1)", "Before", show=False, tooltip="The line with it before"),
        Binding("F", "follow", "Follow", tooltip="Stay at the newest line, or where you are"),
        Binding("w", "wrap", "Wrap", show=False, tooltip="Wrap long lines, or scroll sideways"),
        Binding("c", "check", "Check", tooltip="Look again, and ask the hub, too"),
        Binding("escape", "leave", "Show all", tooltip="Without filter and search"),
    ]

    class CheckWanted(Message):
        """The person asked for a new health check."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=LINES_KEPT)
        self._ended: list[str] = []
        """Lines of the log file of a server that no longer answers; empty: it answers."""
        self._level = LEVELS[0]
        self._drawn = self._hit = self._width = 0
        self._has_left = False
        self.cursor = ""
        """Cursor of the newest line that was received; empty: none was."""

    def compose(self) -> ComposeResult:
        """Lay out findings, the two fields, what is shown, and the lines."""
        yield Static("looking\u2026", id="checks", classes="panel")
        yield Input(
            placeholder="only lines with: enter keeps it, esc shows all", id="filter", compact=True
        )
        yield Input(placeholder="find\u2026 (enter, then n and N)", id="find", compact=True)
        yield Label("", id="log-state", classes="hint", markup=False)
        yield Scrollback(id="log")

    def on_mount(self) -> None:
        """Title the panel."""
        self.query_one("#checks").border_title = "doctor"
        self._say()

    def on_resize(self) -> None:
        """Wrap the lines for another width, after they have it."""
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        width = self._log().scrollable_content_region.width
        if width != self._width:
            self._width = width
            self._draw_again()

    def action_filter(self) -> None:
        """Focus the filter."""
        self._open("#filter")

    def action_find(self) -> None:
        """Focus the field of the search."""
        self._open("#find")

    def _open(self, name: str) -> None:
        field = self.query_one(name, Input)
        field.add_class("open")
        # At once: keys that are typed ahead belong into the field.
        self.screen.set_focus(field)

    def action_level(self) -> None:
        """Switch to the next level: all lines, warnings and worse, errors."""
        self._level = LEVELS[(LEVELS.index(self._level) + 1) % len(LEVELS)]
        self._draw_again()

    def action_follow(self) -> None:
        """Stay at the newest line, or no longer."""
        log = self._log()
        log.auto_scroll = not log.auto_scroll
        if log.auto_scroll:
            log.scroll_end(animate=False)
        self._say()

    def action_wrap(self) -> None:
        """Wrap lines, or let them be scrolled sideways."""
        log = self._log()
        log.wrap = not log.wrap
        self._draw_again()
        log.scroll_to(x=0, animate=False)

    def action_step(self, by: int) -> None:
        """Go to the next line that was searched for, or to the one before."""
        log = self._log()
        log.auto_scroll = False
        self._hit = log.step(by)
        self._say()

    def action_leave(self) -> None:
        """Empty the field that is typed in, or both; the lines have the focus."""
        fields = [each for each in self.query(Input) if each.has_focus] or list(self.query(Input))
        for field in fields:
            field.value = ""
            field.remove_class("open")
        self.screen.set_focus(self._log())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to leave where something is to be left."""
        del parameters
        return self._is_narrowed() if action == "leave" else True

    def _is_narrowed(self) -> bool:
        return any(each.value or each.has_focus for each in self.query(Input))

    def action_check(self) -> None:
        """Ask for a new health check."""
        self.query_one("#checks", Static).update("looking\u2026")
        self.post_message(self.CheckWanted())

    @on(Input.Submitted)
    def field_done(self, event: Input.Submitted) -> None:
        """Focus the lines; after a search at the newest line that was found."""
        event.input.set_class(bool(event.value), "open")
        self.screen.set_focus(self._log())
        if event.input.id == "find" and event.value:
            self.action_step(-1)

    @on(Input.Changed, "#filter")
    def filtered(self) -> None:
        """Draw the lines that contain the filter's text."""
        self._draw_again()

    @on(Input.Changed, "#find")
    def searched(self, event: Input.Changed) -> None:
        """Mark what is searched for."""
        self._log().wanted = event.value.lower()
        self._draw_again()

    @on(Scrollback.Moved)
    def moved(self, event: Scrollback.Moved) -> None:
        """Follow the log while its end is read, and no longer."""
        if self._log().auto_scroll != event.is_at_end:
            self._log().auto_scroll = event.is_at_end
            self._say()

    def show(self, view: LogView) -> None:
        """Draw new lines; those of a restarted server replace the old ones."""
        is_new_run = bool(self.cursor) and run_of(view.cursor) != run_of(self.cursor)
        self.cursor = view.cursor
        if is_new_run:
            self._lines.clear()
        if is_new_run or self._ended:
            self._ended = []
            self._lines.extend(view.data)
            self._draw_again()
        elif view.data:
            self._lines.extend(view.data)
            new = self._texts(view.data)
            if self._drawn + len(new) > 2 * LINES_KEPT:
                self._draw_again()
            else:
                self._put(new)

    def show_file(self, lines: Sequence[str]) -> None:
        """Draw the end of the log file, for a server that no longer answers."""
        self._ended = list(lines[-LINES_KEPT:])
        self._lines.clear()
        self.cursor = ""
        self._draw_again()

    def lost(self, reason: str) -> None:
        """Take back the findings of a server that no longer answers."""
        mark, style = MARKS["fail"]
        text = Text(f"{mark} ", style=style)
        text.append(f"{'server':8} {plain(reason)}", "not bold default")
        self.query_one("#checks", Static).update(text)

    def _draw_again(self) -> None:
        self._drawn = self._hit = 0
        self._log().empty()
        if self._ended:
            wanted = self._wanted()
            found = [each for each in self._ended if wanted in each.lower()]
            self._put([Text(plain(each, width=LINE_WIDTH)) for each in found])
        else:
            self._put(self._texts(self._lines)[-LINES_KEPT:])

    def _put(self, texts: Sequence[Text]) -> None:
        self._drawn += len(texts)
        self._log().put(texts)
        self._say()

    def _texts(self, lines: Iterable[LogLine]) -> list[Text]:
        wanted, texts = self._wanted(), []
        for line in lines:
            text = f"{line.at[11:19]} {line.level:8} {line.message}"
            if wanted in text.lower() and line.level in SEVERE.get(self._level, (line.level,)):
                style = "bold red" if line.level in SEVERE["error"] else ""
                texts += [Text(plain(p, width=LINE_WIDTH), style=style) for p in text.splitlines()]
        return texts

    def _wanted(self) -> str:
        return self.query_one("#filter", Input).value.lower()

    def _log(self) -> Scrollback:
        return self.query_one("#log", Scrollback)

    def _say(self) -> None:
        """Say what is shown of the log, how, and that nothing is if so."""
        log, wanted = self._log(), self._wanted()
        said = [f"{self._drawn:,} lines" if self._drawn else "no line matches: esc shows all"]
        if not self._drawn and not wanted:
            said = ["no lines of this level: l" if self._level != LEVELS[0] else "no lines yet"]
        said.append("every level" if self._level == LEVELS[0] else f"{self._level}s and worse")
        if wanted:
            said.append(f"with {plain(wanted, width=SAID_WIDTH)}")
        if log.wanted:
            hits, text = len(log.hits()), plain(log.wanted, width=SAID_WIDTH)
            said.append(f"{self._hit or '-'} of {hits}: {text}" if hits else f"nothing has {text}")
        said.append("follows (F)" if log.auto_scroll else "stays (F follows)")
        said.append("wraps (w)" if log.wrap else "\u2190 \u2192 (w wraps)")
        self.query_one("#log-state", Label).update(" \u00b7 ".join(said))
        if self._is_narrowed() != self._has_left:
            self._has_left = not self._has_left
            self.refresh_bindings()

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
