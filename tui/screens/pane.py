"""Pane: a table of things, and verbs for the one under the cursor.

Owns what the tabs with tables share: which row is meant, and how an order to the server ends.
"""

from collections.abc import Awaitable, Callable

from textual import work
from textual.coordinate import Coordinate
from textual.widget import Widget
from textual.widgets import DataTable

from tui.gateway import Lost, Refused
from tui.inert import plain

REFUSAL_S = 8.0
"""How long a refusal stays to be read."""


class Pane(Widget):
    """A tab with one table."""

    def under_cursor(self) -> str:
        """Return the key of the row that is meant; empty where there is none."""
        table = self.query_one(DataTable)
        if not table.row_count or not table.is_valid_row_index(table.cursor_row):
            return ""
        return str(table.coordinate_to_cell_key(Coordinate(table.cursor_row, 0)).row_key.value)

    def refused(self, error: Exception) -> None:
        """Say why the server did not do it."""
        self.notify(plain(str(error)), severity="error", timeout=REFUSAL_S)

    @work(group="verb")
    async def order(self, what: str, verb: Callable[[], Awaitable[object]]) -> None:
        """Ask the server for something; whatever takes long may be left."""
        try:
            await verb()
        except (Lost, Refused) as error:
            self.refused(error)
        else:
            self.notify(what)
