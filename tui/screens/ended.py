"""Ended: a banner that says how the server ended, and the last that it wrote to its log."""

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import Static

from tui.inert import plain

LINES_SHOWN = 3
LINE_WIDTH = 400


class Ended(Static):
    """Is only there while no server runs; takes no keys from what is below it."""

    DEFAULT_CSS = """
    Ended { display: none; height: auto; padding: 0 1; border-left: thick $error; }
    Ended.shown { display: block; }
    """

    def show(self, how: str, lines: Sequence[str]) -> None:
        """Say how the server ended, above the last lines of its log."""
        text = Text(f"{plain(how)}. s starts one.", style="bold", overflow="fold")
        text.append("\nThe last lines of its log:" if lines else "\nIts log is empty.", "not bold")
        for line in lines[-LINES_SHOWN:]:
            text.append(f"\n  {plain(line, width=LINE_WIDTH)}", "not bold dim")
        self.update(text)
        self.add_class("shown")

    def hide(self) -> None:
        """Go, because a server runs."""
        self.remove_class("shown")
