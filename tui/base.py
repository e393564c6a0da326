"""Base: what the console does as any application: notifications, help, its theme."""

from collections.abc import Iterable

from textual import events
from textual.app import App, SystemCommand
from textual.binding import ActiveBinding
from textual.notifications import SeverityLevel
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

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """Every key that does something now: the console's own first, then those of its widgets."""
        found = super().active_bindings
        is_own = {key: type(each.node).__module__.startswith("tui.") for key, each in found.items()}
        return {key: found[key] for own in (True, False) for key in found if is_own[key] is own}

    def on_resize(self, event: events.Resize) -> None:
        """Ignore a size that the terminal no longer has.

        A layout posts its size again, so that two pending sizes would alternate for ever.
        """
        if event.size != self.app.size:
            event.prevent_default()


class BaseApp(App[None]):
    """An application whose words are never markup."""

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a notification without markup: names and refusals contain text of others."""
        del markup
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def get_default_screen(self) -> Base:
        """Return the screen below all dialogs."""
        return Base(id="_default")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the commands of any application; help and the end are the console's own words."""
        own = {"Keys": "Help", "Quit": "Quit"}
        for command in super().get_system_commands(screen):
            if command.title not in own:
                yield command
        yield SystemCommand("Help", "What each key does", self.action_help)
        yield SystemCommand("Quit", "Leave the console", self.action_quit)

    def action_help(self) -> None:
        """Show or hide the keys of the focused widget."""
        if self.screen.query("HelpPanel"):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def action_help_quit(self) -> None:
        """Say which key quits, to whoever presses Ctrl-C."""
        self.notify("q quits")
