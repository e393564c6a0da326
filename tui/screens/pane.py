"""Pane: a tab with one table, and actions on the row under the cursor.

Owns what such tabs share: columns that depend on the width, the row under the cursor, updates of
changed cells only, and how the result of an order is shown.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widget import Widget
from textual.widgets import DataTable, Input

from appliance.core.errors import ServerUnreachable
from tui.inert import plain

REFUSAL_S = 8.0
"""Seconds that a refusal is shown."""
WIDE_FROM = 120
"""Width of the terminal in cells from which more is shown side by side."""
TALL_FROM = 32
"""Height of the terminal in lines from which more is shown below each other."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    width: int
    wide: int = 0
    """Width in cells on a wide terminal; 0: the same."""
    since: int = 0
    """Width of the terminal from which the column is shown."""


class Pane(Widget):
    """A tab with one table."""

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    FREE: ClassVar[tuple[str, ...]] = ()
    """Actions that need no row."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Filter", show=False, tooltip="Rows that have some words"),
        Binding("escape", "show_all", "Show all", tooltip="Every row again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._laid_out: list[tuple[str, int]] = []
        self._shown: list[tuple[int, Column]] = []
        """The columns that the table has now, each with its index in `COLUMNS`."""
        self._drawn: dict[str, tuple[Text, ...]] = {}
        self._offered: tuple[bool, ...] = ()
        self._sought, self._then = "", ""
        """The row that the cursor goes to as soon as it is there, and what is done with it."""

    def draw(self) -> None:
        """Draw the rows that are wanted."""
        raise NotImplementedError

    # -- the filter ----------------------------------------------------------------------------

    @property
    def searched(self) -> str:
        """What rows must have; empty: nothing."""
        return self.query_one(".search", Input).value.strip()

    def action_search(self) -> None:
        """Ask for the words that rows must have."""
        field = self.query_one(".search", Input)
        field.add_class("shown")
        self.screen.set_focus(field)  # at once: keys that are typed ahead belong to it

    def action_show_all(self) -> None:
        """Drop the filter."""
        field = self.query_one(".search", Input)
        field.value = ""
        field.remove_class("shown")
        self.query_one(DataTable).focus()
        self.draw()

    @on(Input.Changed, ".search")
    def searching(self) -> None:
        """Draw the rows that have what was typed."""
        self.draw()

    @on(Input.Submitted, ".search")
    def search_done(self) -> None:
        """Go on among the rows that were found."""
        self.query_one(".search", Input).set_class(bool(self.searched), "shown")
        self.query_one(DataTable).focus()

    def seek(self, row: str, then: str = "") -> None:
        """Put the cursor on a row as soon as it is there, and do an action with it; empty: none.

        Whatever is filtered is shown again.
        """
        self._sought, self._then = row, then
        self.action_show_all()

    def can(self, action: str, row: str) -> bool:
        """Say whether an action can be done with a row now; it may be with one not known."""
        del action, row
        return True

    def name_of_row(self) -> str:
        """Return what the row under the cursor is called; empty: there is none."""
        return self.under_cursor()

    @work(group="palette")
    async def _found(self) -> None:
        """Do with the row that was sought what it was sought for."""
        self._go_to(self._sought)
        action, self._sought, self._then = self._then, "", ""
        if action and self.check_action(action, ()):
            await self.run_action(action)
        elif action:
            self.notify(f"{action.replace('_', ' ')}: not for {plain(self.name_of_row())} now")

    # -- the table -----------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Add the columns."""
        self._lay_out()

    def on_resize(self) -> None:
        """Show as many columns as the new width allows."""
        self._lay_out()

    def _lay_out(self) -> None:
        room = self.app.size.width
        shown = [(n, column) for n, column in enumerate(self.COLUMNS) if column.since <= room]
        wanted = [(c.title, (room >= WIDE_FROM and c.wide) or c.width) for _, c in shown]
        if wanted == self._laid_out:
            return
        # Kept, because rows may be filled at a new size before its layout.
        self._laid_out, self._shown = wanted, shown
        table, rows, chosen = self.query_one(DataTable), self._drawn, self.under_cursor()
        table.clear(columns=True)
        for title, width in wanted:
            table.add_column(title, width=width, key=title)
        self._drawn = {}
        self.fill(rows)
        self._go_to(chosen)

    def width_of(self, title: str) -> int:
        """Return the width of a column in cells."""
        return dict(self._laid_out)[title]

    def fill(self, rows: Mapping[str, Sequence[Text]]) -> None:
        """Draw rows by key, each with a cell for all of `COLUMNS`; the cursor stays on its row."""
        table, chosen = self.query_one(DataTable), self.under_cursor()
        if list(rows) != list(self._drawn):
            table.clear()
            for key, cells in rows.items():
                shown = (self._cut(cells[n], column) for n, column in self._shown)
                table.add_row(*shown, key=key)
            self._go_to(chosen)
        else:
            for key, cells in rows.items():
                for n, column in self._shown:
                    if cells[n] != self._drawn[key][n]:
                        table.update_cell(key, column.title, self._cut(cells[n], column))
        self._drawn = {key: tuple(cells) for key, cells in rows.items()}
        if self._sought in rows:
            self._found()

    def _cut(self, cell: Text, column: Column) -> Text:
        """Return a cell that fits into its column; what was cut ends with an ellipsis."""
        if cell.cell_len <= self.width_of(column.title):
            return cell
        cell = cell.copy()
        cell.truncate(self.width_of(column.title), overflow="ellipsis")
        return cell

    def _go_to(self, key: str) -> None:
        table = self.query_one(DataTable)
        if key in table.rows:
            table.move_cursor(row=table.get_row_index(key))

    def under_cursor(self) -> str:
        """Return the key of the row under the cursor, or an empty text if there is none."""
        table = self.query_one(DataTable)
        if not table.row_count or not table.is_valid_row_index(table.cursor_row):
            return ""
        return str(table.coordinate_to_cell_key(Coordinate(table.cursor_row, 0)).row_key.value)

    def offer(self) -> None:
        """Draw the footer anew if other keys do something now: it costs a layout."""
        bindings = chain.from_iterable(self._bindings.key_to_bindings.values())
        actions = [binding.action for binding in bindings]
        offered = tuple(bool(self.check_action(action, ())) for action in actions)
        if offered != self._offered:
            self._offered = offered
            self.refresh_bindings()

    def refused(self, error: Exception) -> None:
        """Show why the server did not do it."""
        self.notify(plain(str(error)), severity="error", timeout=REFUSAL_S)

    @work(group="verb")
    async def order(self, what: str, verb: Callable[[], Awaitable[object]]) -> None:
        """Send an order, and show its result; the person may go on meanwhile."""
        try:
            await verb()
        except ServerUnreachable as error:
            self.refused(error)
        else:
            self.notify(what)
