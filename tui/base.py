"""Base: the screen below all dialogs, and the console's own theme."""

from textual import events
from textual.screen import Screen
from textual.theme import Theme

HIGH_CONTRAST = Theme(
    name="high-contrast",
    dark=True,
    primary="#ffff00",
    secondary="#00ffff",
    accent="#ffffff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#222222",
    success="#00ff00",
    warning="#ffff00",
    error="#ff4444",
)


class Base(Screen[None]):
    """The screen below all dialogs."""

    AUTO_FOCUS = ""
    """None: the open tab takes the focus, and not the row of tabs."""

    def on_resize(self, event: events.Resize) -> None:
        """Ignore a size that the terminal no longer has.

        A layout posts its size again, so that two pending sizes would alternate for ever.
        """
        if event.size != self.app.size:
            event.prevent_default()
