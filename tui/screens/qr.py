"""QR: an address as a code that a phone scans: whole, and dark on light in every theme."""

from typing import ClassVar

import segno
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, Static

from tui.inert import inert

QUIET = 2
"""Light squares around the code; scanners find it by them."""
INK = "#000000 on #ffffff"
"""Not the theme's colours: a code that is light on dark is not read by every scanner."""
HALVES = {(0, 0): " ", (0, 1): "\u2584", (1, 0): "\u2580", (1, 1): "\u2588"}
"""Characters for two squares, the upper and the lower one; 1 is dark."""


def qr(text: str) -> Text:
    """Return a QR code in half blocks, with the light squares around it that it needs."""
    code = segno.make(text, micro=False, error="l")
    rows = [[int(dark) for dark in row] for row in code.matrix_iter(border=QUIET)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = (
        "".join(HALVES[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
    return Text("\n").join(Text(line, style=INK, no_wrap=True) for line in lines)


class Code(ModalScreen[None]):
    """A code with nothing beside it, for terminals that are too low for more."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,r", "leave", "Close")]

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def compose(self) -> ComposeResult:
        """Lay out the address above the code."""
        with Vertical(classes="dialog"):
            yield Label(inert(self._address), classes="heading")
            yield Static(qr(self._address), id="qr")

    def action_leave(self) -> None:
        """Close the dialog."""
        self.dismiss(None)
