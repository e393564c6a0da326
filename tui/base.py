"""Base: what the console does as any application: notifications, help, theme, pictures."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from textual import events, on
from textual.app import App, SystemCommand
from textual.binding import ActiveBinding
from textual.css.query import NoMatches
from textual.filter import NoColor
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Label

from tui import theme
from tui.inert import inert, plain

W = TypeVar("W", bound=Widget)

OPENING_STEPS = 100
"""Turns of the event loop in which the worker of an action opens its form."""
WIDTH_MIN, HEIGHT_MIN = 80, 24
"""Cells and lines of the smallest terminal that everything fits into."""
REASON_WIDTH = 300


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
        """Ignore a size that the terminal no longer has, and say when one is too small.

        A layout posts its size again, so that two pending sizes would alternate for ever.
        """
        if event.size != self.app.size:
            event.prevent_default()
            return
        width, height = event.size
        for label in self.query("#small").results(Label):
            label.update(f"{width}x{height} cuts what is shown: 80x24 or more has room for it")
            label.set_class(width < WIDTH_MIN or height < HEIGHT_MIN, "shown")


class TypedAhead:
    """A screen that is given the keys that were pressed before it was there."""

    def take(self, event: events.Key) -> None:
        """Take a key."""
        raise NotImplementedError


class BaseApp(App[None]):
    """An application whose words are never markup, and whose theme is kept."""

    def __init__(self, kept: Path | None) -> None:
        """Prepare; `kept` is the file of the theme, None where it is not kept."""
        super().__init__()
        if self.no_color:
            self.drop_colours()
        self._kept = kept
        self.register_theme(theme.HIGH_CONTRAST)
        chosen = theme.read(kept) if kept else ""
        if chosen in self.available_themes:
            self.theme = chosen

    def drop_colours(self) -> None:
        """Send no colour at all, as NO_COLOR asks for and a terminal without colours needs."""
        self.no_color = True
        # Textual would send shades of grey, which are colours to a terminal all the same.
        self._filters = [NoColor()]

    async def on_event(self, event: events.Event) -> None:
        """Note for which screen a key was pressed."""
        if isinstance(event, events.Key) and not event.is_forwarded and self.screen_stack:
            event.pressed_on = self.screen  # type: ignore[attr-defined]  # read in on_key
        await super().on_event(event)

    async def on_key(self, event: events.Key) -> None:
        """Give a key that nothing took to the form that the key before it has opened."""
        pressed_on = getattr(event, "pressed_on", None)
        for _ in range(OPENING_STEPS):
            await asyncio.sleep(0)
            is_opening = any(worker.group == "verb" for worker in self.workers)
            if not is_opening or self.screen_stack[-1:] != [pressed_on]:
                break
        screen: object = self.screen_stack[-1] if self.screen_stack else None  # it is closing
        if isinstance(screen, TypedAhead) and pressed_on not in (None, screen):
            event.prevent_default()
            event.stop()
            screen.take(event)

    def watch_theme(self, chosen: str) -> None:
        """Keep the theme that was chosen for the next run."""
        if not self.is_running or self._kept is None or theme.read(self._kept) == chosen:
            return
        try:
            theme.write(self._kept, chosen)
        except OSError as error:
            why = f"{self._kept.parent}: {error.strerror or error}"
            self.notify(f"The theme is not kept: {why}", severity="warning")

    def deliver_screenshot(
        self, filename: str | None = None, path: str | None = None, time_format: str | None = None
    ) -> str | None:
        """Save a picture of the console; why there is none is said."""
        try:
            return super().deliver_screenshot(filename, path, time_format)
        except OSError as error:
            self._say_no_picture(error)
            return None

    @on(events.DeliveryFailed)
    def delivery_failed(self, event: events.DeliveryFailed) -> None:
        """Say why a picture was not saved, in place of textual's word that it was not."""
        event.prevent_default()
        self._say_no_picture(event.exception)

    def _say_no_picture(self, error: BaseException) -> None:
        where = getattr(error, "filename", None) or "this machine"
        why = plain(f"{where}: {getattr(error, 'strerror', None) or error}", width=REASON_WIDTH)
        self.notify(
            f"The picture was not saved: {why}. Let this user write there, then try again",
            severity="error",
        )

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

    def _base(self, kind: type[W]) -> W:
        """Return a pane of the base screen, also while a dialog covers it."""
        if not self.screen_stack:
            raise NoMatches("the console is closing")
        return self.screen_stack[0].query_one(kind)

    def _say(self, text: str, *, lost: bool = False) -> None:
        for screen in self.screen_stack[:1]:
            for label in screen.query("#status").results(Label):
                label.update(inert(text), layout=False)
                label.set_class(lost, "lost")
