"""Trial: a dialog that tries a model with texts of the person.

Owns a key of its own, which is revoked when the dialog closes.
"""

import math
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static, TextArea

from appliance.client import verbs
from appliance.client.paid import Ranking, Vectors
from appliance.core.errors import ServerUnreachable
from appliance.wire.keys import MintOrder
from appliance.wire.models import ModelView
from tui import figures
from tui.connection import Connection
from tui.inert import inert, plain

SHOWN = 8
"""Numbers of a vector, or documents of a ranking, that are shown."""


class Trial(ModalScreen[None]):
    """Two texts and their cosine, or a query and documents."""

    AUTO_FOCUS = "Input"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close"),
        Binding("ctrl+r", "run", "Run", priority=True),
    ]

    def __init__(self, client: Connection, model: ModelView) -> None:
        super().__init__()
        self._client, self._model = client, model
        self._key: tuple[str, str] | None = None

    def compose(self) -> ComposeResult:
        """Lay out the inputs above the answer."""
        is_rerank = self._model.task == "rerank"
        with VerticalScroll(classes="dialog"):
            yield Label(inert(f"Try {self._model.id}"), classes="heading")
            yield Label("Query" if is_rerank else "One text")
            yield Input("How do I reset my password?", id="first", compact=True)
            yield Label("Documents, one a line" if is_rerank else "Another text")
            if is_rerank:
                yield TextArea(
                    "Open Settings and choose Reset.\nInvoices are sent monthly.\nThe cat sat.",
                    id="second",
                )
            else:
                yield Input("Where can I change my password?", id="second", compact=True)
            yield Label("ctrl+r or enter runs it with a key of its own; esc closes", classes="hint")
            yield Static(id="outcome")

    @on(Input.Submitted)
    def action_run(self) -> None:
        """Send the texts to the model."""
        self.query_one("#outcome", Static).update("asking\u2026")
        self._ask()

    @work(exclusive=True, group="trial")
    async def _ask(self) -> None:
        first = self.query_one("#first", Input).value
        second = self.query_one("#second")
        text = second.text if isinstance(second, TextArea) else getattr(second, "value", "")
        try:
            found = await self._asked(first, text)
        except ServerUnreachable as error:
            self.query_one("#outcome", Static).update(Text(plain(str(error)), style="bold red"))
            return
        self.query_one("#outcome", Static).update(outcome(found))

    async def _asked(self, first: str, second: str) -> Vectors | Ranking:
        if self._key is None:
            order = MintOrder(name="console trial", credit="0.01", expires="1h")
            minted = await self._client.do(verbs.MINT, order=order)
            self._key = minted.id, minted.key
        if self._model.task != "rerank":
            return await self._client.embed(self._key[1], self._model.id, [first, second])
        documents = [line for line in second.splitlines() if line.strip()]
        return await self._client.rerank(self._key[1], self._model.id, first, documents)

    @work
    async def action_leave(self) -> None:
        """Revoke the key and close."""
        if self._key is not None:
            try:
                await self._client.do(verbs.REVOKE, self._key[0])
            except ServerUnreachable as error:
                self.notify(plain(str(error)), severity="error")
        self.dismiss(None)


def outcome(found: Vectors | Ranking) -> Text:
    """Return the answer to a paid call, in a few lines."""
    text = Text()
    if isinstance(found, Ranking):
        for hit in found.hits[:SHOWN]:
            text.append(f"{hit.score:6.3f} {figures.bar(hit.score, 12)} ")
            text.append(f"{plain(hit.text, width=48)}\n")
    else:
        first = found.rows[0]
        head = ", ".join(f"{number:+.4f}" for number in first[:SHOWN])
        text.append(f"[{head}, \u2026 {len(first)}]\n")
        for other in found.rows[1:2]:
            cosine = math.fsum(a * b for a, b in zip(first, other, strict=True))
            text.append(f"cosine {cosine:.3f} {figures.bar(cosine, 20)}\n")
    text.append(f"{figures.money(found.cost)} in {figures.ms(found.ms)}", style="bold")
    return text
