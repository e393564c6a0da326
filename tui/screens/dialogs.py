"""Dialogs: questions above a screen, each with a typed answer.

Owns confirmations, choices, and the display of a key's secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Label, Static

from tui.inert import inert, plain
from tui.screens.snippets import Snippets, snippets

QUESTION_CHARS_MAX = 600
COPIES = "c copies the key, s the snippet (OSC 52: your terminal must allow it)"


class Confirm(ModalScreen[bool]):
    """A yes-or-no question."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer(False)", "No"),
        Binding("y", "answer(True)", "Yes"),
    ]

    def __init__(self, question: str, *, yes: str = "Yes", no: str = "No") -> None:
        super().__init__()
        self._question, self._yes, self._no = question, yes, no

    def compose(self) -> ComposeResult:
        """Lay out the question above its two buttons."""
        with Vertical(classes="dialog"):
            yield Static(inert_block(plain(self._question, width=QUESTION_CHARS_MAX)))
            with Horizontal(classes="buttons"):
                yield Button(f"{self._no} (n)", id="no")
                yield Button(f"{self._yes} (y)", id="yes", variant="warning")

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Answer with a button."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001 - textual's way to say it
        """Answer with a key."""
        self.dismiss(answer)


@dataclass(frozen=True, slots=True)
class Option:
    """One answer to a question: the key that gives it, which is the answer too, and its words."""

    key: str
    label: str


class Choice(ModalScreen[str | None]):
    """A question with several answers; the first is the default, and Esc, or None, is none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel")]

    def __init__(self, question: str, options: Sequence[Option]) -> None:
        super().__init__()
        self._question, self._options = question, options

    def compose(self) -> ComposeResult:
        """Lay out the question above a button for each answer."""
        with Vertical(classes="dialog"):
            yield Static(inert_block(plain(self._question, width=QUESTION_CHARS_MAX)))
            with Horizontal(classes="buttons"):
                for number, option in enumerate(self._options):
                    yield Button(
                        f"{option.label} ({option.key})",
                        id=f"option-{option.key}",
                        variant="default" if number else "primary",
                    )
                yield Button("Cancel (esc)", id="cancel")

    def on_key(self, event: events.Key) -> None:
        """Answer with a key."""
        if event.key in {option.key for option in self._options}:
            event.stop()
            self.dismiss(event.key)

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Answer with a button."""
        found = (event.button.id or "").removeprefix("option-")
        self.dismiss(None if found == "cancel" else found)

    def action_leave(self) -> None:
        """Answer nothing: everything stays as it is."""
        self.dismiss(None)


class Secret(ModalScreen[None]):
    """A key's secret, which is shown once, and snippets that use it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "copy", "Copy the key"),
        Binding("s", "copy_snippet", "Copy the snippet"),
        Binding("escape,enter", "leave", "Close"),
    ]

    def __init__(self, name: str, key: str, url: str, model: str) -> None:
        super().__init__()
        self._name, self._key = name, key
        self._snippets = snippets(url, key, model)

    def compose(self) -> ComposeResult:
        """Lay out the key and the first snippet."""
        with VerticalScroll(classes="dialog"):
            yield Label(inert(f"Key of {self._name}: shown this once"), classes="heading")
            yield Static(inert(self._key), classes="secret", id="secret")
            yield Label(COPIES, classes="hint")
            yield Snippets(id="how")
            with Horizontal(classes="buttons"):
                yield Button("Copy (c)", id="copy", variant="primary")
                yield Button("Close (esc)", id="close")

    def on_mount(self) -> None:
        """Show the first snippet."""
        self.query_one(Snippets).offer(self._snippets)

    def on_key(self, event: events.Key) -> None:
        """Show the snippet that the pressed number stands for."""
        self.query_one(Snippets).choose(event.character)

    @on(Button.Pressed, "#copy")
    def action_copy(self) -> None:
        """Copy the key to the terminal's clipboard."""
        self.app.copy_to_clipboard(self._key)
        self.notify("The key is copied")

    def action_copy_snippet(self) -> None:
        """Copy the snippet that is shown, key included, to the terminal's clipboard."""
        self.app.copy_to_clipboard(self.query_one(Snippets).chosen)
        self.notify("The snippet is copied")

    @on(Button.Pressed, "#close")
    def action_leave(self) -> None:
        """Close the dialog; the secret is not kept."""
        self.dismiss(None)


def inert_block(text: str) -> Text:
    """Return several lines of text without markup."""
    return Text(text, no_wrap=False)
