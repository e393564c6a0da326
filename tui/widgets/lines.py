"""Lines: a block of text of which only changed lines are drawn again.

This keeps a console cheap that changes twice a second: there is no layout and no markup, and lines
that are too long are cut and not wrapped.
"""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

Piece = tuple[str, str]
"""Text without control characters, and its style: one of `LOOKS`, or empty."""
Line = tuple[Piece, ...]

LOOKS = ("dim", "figure", "bad", "low", "middle", "high")


class Lines(Widget):
    """As many lines as the widget is high; `draw` sets them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{look}" for look in LOOKS}
    DEFAULT_CSS = """
    Lines { height: auto; }
    Lines > .lines--dim { color: $text-muted; }
    Lines > .lines--figure { color: $accent; text-style: bold; }
    Lines > .lines--bad { color: $error; text-style: bold; }
    Lines > .lines--low { color: $primary; }
    Lines > .lines--middle { color: $primary-lighten-1; }
    Lines > .lines--high { color: $primary-lighten-3; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id, classes=classes)
        self._lines: tuple[Line, ...] = ()
        self._styles_of: dict[str, Style] = {}

    def draw(self, lines: Sequence[Line]) -> None:
        """Replace all lines, from the top."""
        old, self._lines = self._lines, tuple(lines)
        width = self.content_size.width
        for y in range(max(len(old), len(self._lines))):
            if self._at(old, y) != self._at(self._lines, y):
                self.refresh(Region(0, y, width, 1))

    @property
    def text(self) -> str:
        """The text of all lines, without styles."""
        return "\n".join("".join(piece for piece, _ in line) for line in self._lines)

    @staticmethod
    def _at(lines: Sequence[Line], y: int) -> Line:
        return lines[y] if y < len(lines) else ()

    def render_line(self, y: int) -> Strip:
        """Return one line, as wide as the widget."""
        segments = [Segment(text, self._style(look)) for text, look in self._at(self._lines, y)]
        return Strip(segments).adjust_cell_length(self.content_size.width, self._style(""))

    def _style(self, look: str) -> Style:
        if look not in self._styles_of:
            self._styles_of[look] = (
                self.get_component_rich_style(f"lines--{look}") if look else self.rich_style
            )
        return self._styles_of[look]

    def notify_style_update(self) -> None:
        """Drop the cached styles when the theme changes."""
        self._styles_of = {}
        super().notify_style_update()


def cut(text: str, width: int) -> str:
    """Return text in exactly `width` cells, cut or padded on the right."""
    return set_cell_size(text, max(0, width))


def right(text: str, width: int) -> str:
    """Return text in exactly `width` cells, padded on the left; cut text ends with an ellipsis."""
    room = width - cell_len(text)
    if room < 0:
        return set_cell_size(text, max(0, width - 1)) + "\u2026" * (width > 0)
    return " " * room + text


def column(text: str, width: int) -> str:
    """Return text on the right of a column of `width` cells, of which the first is always a gap."""
    return " " * min(1, width) + right(text, width - 1) if width > 0 else ""
