"""Welcome: the dialog of a first start: it mints a key and makes a call with one key press."""

from typing import ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Label, Static

from appliance.client import verbs
from appliance.core.errors import ServerUnreachable
from appliance.wire.engines import EngineList
from appliance.wire.keys import MintOrder
from appliance.wire.models import ModelView
from tui import figures
from tui.connection import Connection
from tui.fit import size_of, suggested
from tui.inert import inert, plain
from tui.screens.snippets import Snippets, snippets
from tui.screens.trial import outcome

WORDS = "How do I reset my password?"
SUGGESTED_MAX = 4
UNLIMITED = (
    "the first, me, is unlimited: metered, but never refused\n"
    "      for lack of credit. Keys with credit or an end: 3, then m\n"
)


class Welcome(ModalScreen[None]):
    """What this machine has, the first key, and the first call."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "begin", "Mint a key and try it"),
        Binding("c", "copy", "Copy the key"),
        Binding("s", "copy_snippet", "Copy the snippet"),
        Binding("escape", "leave", "Close"),
    ]

    def __init__(self, client: Connection, models: list[ModelView], engines: EngineList) -> None:
        super().__init__()
        self._client, self._models, self._engines = client, models, engines
        self._starter = next((m.id for m in models if m.available and m.task == "embeddings"), "")
        self._key = ""

    def compose(self) -> ComposeResult:
        """Lay out devices and models above the first key and call."""
        with VerticalScroll(classes="dialog"):
            yield Label("Welcome to gigarouter", classes="heading")
            yield Static(self._here(), id="here")
            yield Static(id="secret")
            yield Static(id="first-call")
            yield Snippets(id="how")
            with Horizontal(classes="buttons"):
                yield Button("Mint a key and try it (enter)", id="begin", variant="primary")
                yield Button("Close (esc)", id="close")

    def _here(self) -> Text:
        text = Text()
        for device in self._engines.devices:
            text.append(f"{device.kind.upper():5} ", style="bold")
            cores = self._engines.cores if device.kind == "cpu" else 0
            cores_ = f", {cores} core{'s' * (cores != 1)}" if cores else ""
            name = plain(device.description or device.name)
            text.append(f"{name}{cores_}, {figures.size(device.memory)}\n")
        text.append("Here  ", style="bold")
        text.append(f"{plain(self._starter)}: works now\n")
        for model in suggested(self._models, self._engines, SUGGESTED_MAX):
            text.append("Fits  ", style="bold")
            about = f"{model.task}, {figures.size(size_of(model))}"
            text.append(f"{plain(model.id)} ({about}): 2, then p\n")
        text.append("Key   ", style="bold")
        text.append(UNLIMITED)
        return text

    @on(Button.Pressed, "#begin")
    def action_begin(self) -> None:
        """Mint a key and make a call with it; the second time, close."""
        if not self._key:
            self.query_one("#secret", Static).update("minting\u2026")
            self._begin()
        else:
            self.dismiss(None)

    @work(exclusive=True, group="welcome")
    async def _begin(self) -> None:
        try:
            minted = await self._client.do(
                verbs.MINT, order=MintOrder(name="me", credit="unlimited")
            )
            self._key = minted.key
            secret = self.query_one("#secret", Static)
            secret.add_class("secret")
            secret.update(inert(minted.key))
            self.query_one("#first-call", Static).update("calling\u2026")
            found = await self._client.embed(minted.key, self._starter, [WORDS])
        except ServerUnreachable as error:
            self.query_one("#first-call", Static).update(Text(plain(str(error)), style="bold red"))
            return
        said = Text(
            "Your key, unlimited, shown this once: c copies it, s the snippet. It works:\n",
            style="bold",
        )
        said.append(outcome(found))
        self.query_one("#first-call", Static).update(said)
        ways = snippets(self._client.url, minted.key, self._starter)
        self.query_one(Snippets).offer(ways)
        self.query_one("#begin", Button).label = "Done (enter)"

    def action_copy(self) -> None:
        """Copy the key to the terminal's clipboard."""
        if self._key:
            self.app.copy_to_clipboard(self._key)
            self.notify("The key is copied")

    def action_copy_snippet(self) -> None:
        """Copy the snippet that is shown, key included, to the terminal's clipboard."""
        if self._key:
            self.app.copy_to_clipboard(self.query_one(Snippets).chosen)
            self.notify("The snippet is copied")

    def on_key(self, event: events.Key) -> None:
        """Show the snippet that the pressed number stands for."""
        self.query_one(Snippets).choose(event.character)

    @on(Button.Pressed, "#close")
    def action_leave(self) -> None:
        """Close the dialog; the key is not kept."""
        self.dismiss(None)
