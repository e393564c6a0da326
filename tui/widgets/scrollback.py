"""Scrollback: lines of a log that are searched, wrapped or scrolled sideways, and followed.

Owns where the reader is in them. What is shown of a log is decided elsewhere.
"""

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widgets import RichLog

HIT, HERE = Style(bold=True, underline=True), Style(reverse=True)


class Scrollback(RichLog):
    """Lines with a place in them; its owner writes at most so many that they need no trimming."""

    class Moved(Message):
        """The reader went away from the end, or back to it."""

        def __init__(self, *, is_at_end: bool) -> None:
            super().__init__()
            self.is_at_end = is_at_end

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's name
        super().__init__(wrap=True, markup=False, highlight=False, min_width=0, id=id)
        self.wanted = ""
        """What is searched for, in lower case; empty: nothing."""
        self._here: int | None = None

    def put(self, lines: Sequence[Text]) -> None:
        """Write lines below the others, the found text in them marked."""
        for line in lines:
            if self.wanted:
                start = line.plain.lower().find(self.wanted)
                while start >= 0:
                    line.stylize(HIT, start, start + len(self.wanted))
                    start = line.plain.lower().find(self.wanted, start + len(self.wanted))
            self.write(line, shrink=self.wrap)

    def empty(self) -> None:
        """Remove all lines."""
        self._here = None
        self.clear()

    def hits(self) -> list[int]:
        """Return the lines of the display that contain what is searched for."""
        if not self.wanted:
            return []
        return [n for n, line in enumerate(self.lines) if self.wanted in line.text.lower()]

    def step(self, by: int) -> int:
        """Go to the next hit (1) or the one before (-1), around the ends; return its number, or 0.

        The first step goes back from the end of what is seen, where the newest lines are.
        """
        hits = self.hits()
        if not hits:
            return 0
        if self._here is None:
            bottom = int(self.scroll_y) + self.size.height
            number = max((n for n, line in enumerate(hits) if line < bottom), default=0)
        else:
            after = sum(line <= self._here for line in hits)
            before = sum(line < self._here for line in hits)
            number = (after if by > 0 else before - 1) % len(hits)
        self._here = hits[number]
        self.scroll_to(y=max(0, self._here - self.size.height // 2), animate=False)
        self.refresh()
        return number + 1

    def render_line(self, y: int) -> Strip:
        """Return a line as it is drawn; the hit that the reader is at stands out."""
        strip = super().render_line(y)
        is_here = self._here is not None and int(self.scroll_offset.y) + y == self._here
        return strip.apply_style(HERE) if is_here else strip

    def action_scroll_up(self) -> None:
        """Go up, and away from the end."""
        self.post_message(self.Moved(is_at_end=False))
        super().action_scroll_up()

    def action_page_up(self) -> None:
        """Go up, and away from the end."""
        self.post_message(self.Moved(is_at_end=False))
        super().action_page_up()

    def action_scroll_home(self) -> None:
        """Go to the first line, and away from the end."""
        self.post_message(self.Moved(is_at_end=False))
        super().action_scroll_home()

    def action_scroll_end(self) -> None:
        """Go to the end, and stay there."""
        self.post_message(self.Moved(is_at_end=True))
        super().action_scroll_end()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Go away from the end with the wheel; textual scrolls."""
        del event
        self.post_message(self.Moved(is_at_end=False))
