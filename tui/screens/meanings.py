"""Meanings: a dialog that says what each figure counts; the README says the same, once."""

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label, Static

MEANINGS = (
    ("calls", "embeddings or rerank, answered and charged; a line of a batch is one"),
    ("tokens", "usage.total_tokens of the calls, those of rerank included"),
    ("docs", "documents that rerank charged for"),
    ("refused, err", "ended with an error, or the client hung up; of its model, if it named one"),
    ("free", "about tokens, dry runs, and a charged call that is sent again"),
    ("a second", "over the last five; panels say what they are over"),
    ("highest", "one step of the graph, or one minute where steps are longer"),
    ("graphs", "from 1 h on they outlive a restart: 1 h in minutes, 30 d in hours"),
    ("usage", "calls of the books, with those that were given back (refunds)"),
)


class Meanings(ModalScreen[None]):
    """What each figure counts."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,i", "leave", "Close")]

    def compose(self) -> ComposeResult:
        """Lay out a line for each figure."""
        with VerticalScroll(classes="dialog"):
            yield Label("What the figures count", classes="heading")
            yield Static("Each request counts once: as a call, as refused, or as free.\n")
            yield Static(_table(), id="meanings")
            yield Label("esc closes", classes="hint")

    def action_leave(self) -> None:
        """Close the dialog."""
        self.dismiss(None)


def _table() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in MEANINGS:
        table.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
    return table
