"""Trial: a model tried with a person's own texts.

Owns the pane, and a key of its own that is revoked when it is left.
"""

import math
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static, TextArea

from appliance.wire.keys import MintOrder
from appliance.wire.models import ModelView
from tui import figures
from tui.gateway import AdminClient, Lost, Refused, Tried
from tui.inert import inert, plain

OK = 200
SHOWN = 8
"""Numbers of a vector, and documents of a ranking."""


class Trial(ModalScreen[None]):
    """Two texts and their cosine, or a query over lines."""

    AUTO_FOCUS = "Input"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close"),
        Binding("ctrl+r", "run", "Run", priority=True),
    ]

    def __init__(self, client: AdminClient, model: ModelView) -> None:
        super().__init__()
        self._client, self._model = client, model
        self._key: tuple[str, str] | None = None

    def compose(self) -> ComposeResult:
        """Lay out the texts over what comes back."""
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
        """Ask the model."""
        self.query_one("#outcome", Static).update("asking\u2026")
        self._ask()

    @work(exclusive=True, group="trial")
    async def _ask(self) -> None:
        first = self.query_one("#first", Input).value
        second = self.query_one("#second")
        text = second.text if isinstance(second, TextArea) else getattr(second, "value", "")
        body: dict[str, Any] = {"model": self._model.id}
        if self._model.task == "rerank":
            documents = [line for line in text.splitlines() if line.strip()]
            body |= {"query": first, "documents": documents, "return_documents": True}
            path = "/v1/rerank"
        else:
            body |= {"input": [first, text]}
            path = "/v1/embeddings"
        try:
            if self._key is None:
                minted = await self._client.mint(
                    MintOrder(name="console trial", credit="0.01", expires="1h")
                )
                self._key = minted.id, minted.key
            tried = await self._client.gateway.call(self._key[1], path, body)
        except (Lost, Refused) as error:
            self.query_one("#outcome", Static).update(Text(plain(str(error)), style="bold red"))
            return
        self.query_one("#outcome", Static).update(outcome(tried))

    @work
    async def action_leave(self) -> None:
        """Revoke the key and close."""
        if self._key is not None:
            try:
                await self._client.revoke(self._key[0])
            except (Lost, Refused) as error:
                self.notify(plain(str(error)), severity="error")
        self.dismiss(None)


def outcome(tried: Tried) -> Text:
    """Return what a call gave, in a few lines."""
    if tried.status != OK:
        message = tried.body.get("error", {}).get("message", "it failed")
        return Text(f"{tried.status}: {plain(message)}", style="bold red")
    found = Text()
    if "results" in tried.body:
        for hit in tried.body["results"][:SHOWN]:
            score = hit["relevance_score"]
            found.append(f"{score:6.3f} {figures.bar(score, 12)} ")
            found.append(f"{plain(hit['document']['text'], width=48)}\n")
    else:
        vectors = [each["embedding"] for each in tried.body["data"]]
        head = ", ".join(f"{number:+.4f}" for number in vectors[0][:SHOWN])
        found.append(f"[{head}, \u2026 {len(vectors[0])}]\n")
        if len(vectors) > 1:
            cosine = math.fsum(a * b for a, b in zip(*vectors[:2], strict=True))
            found.append(f"cosine {cosine:.3f} {figures.bar(cosine, 20)}\n")
    found.append(f"{tried.cost} credits in {figures.ms(tried.ms)}", style="bold")
    return found
