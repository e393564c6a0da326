"""Form: a dialog of fields that stays open, with everything typed, until what it asks for is done.

Owns where it is said what is wrong: beside the field, for all fields at once.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

from appliance.core.errors import ApplianceError
from tui.base import TypedAhead
from tui.inert import inert
from tui.screens.checks import Check, anything

T = TypeVar("T")

REASON_CHARS_MAX = 400


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a form."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    check: Check = anything
    """Says what is wrong with a value, before it is sent."""
    params: tuple[str, ...] = ()
    """What the server calls the field, where that is not its name."""


class Form(ModalScreen[T | None], TypedAhead):
    """A form; its answer is what `send` returned, or None if it was cancelled."""

    AUTO_FOCUS = "Input"

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel")]

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        send: Callable[[Mapping[str, str]], Awaitable[T]],
        *,
        done: str = "OK",
    ) -> None:
        """Prepare; `send` is given the values by name, and its `ApplianceError` is shown here."""
        super().__init__()
        self._title, self._fields, self._send, self._done = title, fields, send, done
        self._is_sending = False
        self._ahead: list[events.Key] | None = []
        """Keys that were pressed before a field could take them; None: one can."""

    def on_mount(self) -> None:
        """Give the first field what was typed ahead, as soon as it is there."""
        self.call_after_refresh(self._replay)

    def on_key(self, event: events.Key) -> None:
        """Keep a key for the first field until it is there."""
        if self._ahead is not None:
            event.prevent_default()
            event.stop()
            self.take(event)

    def take(self, event: events.Key) -> None:
        """Take a key that was pressed before the form was there."""
        if self._ahead is not None:
            self._ahead.append(event)
        else:
            self._give(event)

    def _replay(self) -> None:
        if self.focused is None:
            self.set_focus(self.query(Input).first())
        ahead, self._ahead = self._ahead or [], None
        for event in sorted(ahead, key=lambda each: each.time):
            self._give(event)

    def _give(self, event: events.Key) -> None:
        # In the application's name: what its sender's child does not handle goes no further.
        key = events.Key(event.key, event.character).set_sender(self.app)
        (self.focused or self)._forward_event(key)  # noqa: SLF001 - as App.on_event does

    def compose(self) -> ComposeResult:
        """Lay out a line for each field, with room below it for what is wrong."""
        with VerticalScroll(classes="dialog"):
            yield Label(inert(self._title), classes="heading")
            for field in self._fields:
                with Horizontal(classes="field"):
                    yield Label(field.label)
                    yield Input(
                        field.value, placeholder=field.hint, id=f"field-{field.name}", compact=True
                    )
                yield Label("", id=f"wrong-{field.name}", classes="wrong")
            yield Label("", id="wrong", classes="wrong whole")
            with Horizontal(classes="buttons"):
                yield Button("Cancel (esc)", id="cancel")
                yield Button(f"{self._done} (enter)", id="done", variant="primary")

    @on(Input.Submitted)
    @on(Button.Pressed, "#done")
    def finished(self) -> None:
        """Send the values, unless something is wrong with one of them."""
        if self._is_sending:
            return
        values = {field.name: self._input(field).value.strip() for field in self._fields}
        wrong = {field.name: field.check(values[field.name]) for field in self._fields}
        self._show(wrong)
        if not any(wrong.values()):
            self._is_sending = True
            self._send_all(values)

    @work(exclusive=True, group="form")
    async def _send_all(self, values: Mapping[str, str]) -> None:
        try:
            self.dismiss(await self._send(values))
        except ApplianceError as error:
            named = {name: field.name for field in self._fields for name in _names_of(field)}
            self._show({named.get(error.param or "", ""): error.message})
        finally:
            self._is_sending = False

    def _show(self, wrong: Mapping[str, str]) -> None:
        """Say what is wrong with each field, and with the whole under the name of nothing."""
        for field in self._fields:
            self._mark(field.name, wrong.get(field.name, ""))
        self._mark("", wrong.get("", ""))
        first = next((field for field in self._fields if wrong.get(field.name)), None)
        if first is not None:
            self._input(first).focus()

    def _mark(self, name: str, reason: str) -> None:
        label = self.query_one(f"#wrong-{name}" if name else "#wrong", Label)
        text = inert(reason, width=REASON_CHARS_MAX)
        text.no_wrap, text.overflow = False, "fold"
        label.update(text)
        label.set_class(bool(reason), "shown")

    @on(Input.Changed)
    def changed(self, event: Input.Changed) -> None:
        """Check a field again that something was wrong with."""
        for field in self._fields:
            label = self.query_one(f"#wrong-{field.name}", Label)
            if event.input.id == f"field-{field.name}" and label.has_class("shown"):
                self._mark(field.name, field.check(event.value.strip()))

    def _input(self, field: Field) -> Input:
        return self.query_one(f"#field-{field.name}", Input)

    @on(Button.Pressed, "#cancel")
    def action_leave(self) -> None:
        """Cancel the form; what was sent already is waited for, for it may be done."""
        if not self._is_sending:
            self.dismiss(None)


def _names_of(field: Field) -> tuple[str, ...]:
    return (field.name, *field.params)
