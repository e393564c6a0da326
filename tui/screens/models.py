"""Models: the catalogue, what of it is here, and what is on its way.

Owns the table, and which verb a key press asks for. Deliberately talks to nobody: the console's
desk does, in workers.
"""

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label, Static

from appliance.wire.downloads import DownloadView, HubModelOrder
from appliance.wire.engines import EngineList, EngineView
from appliance.wire.models import ModelView
from tui import figures
from tui.gateway import Desk, Lost, Refused
from tui.inert import inert, plain
from tui.screens.dialogs import Confirm, Field, Form
from tui.screens.pane import Pane
from tui.screens.trial import Trial

COLUMNS = (
    ("model", 38),
    ("task", 10),
    ("params", 6),
    ("state", 26),
    ("price", 14),
    ("license", 12),
)
BAR = 10
RUNNING = ("waiting", "fetching", "checking")


class Models(Pane):
    """The table of models."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pull", "Pull", tooltip="Fetch the model from the hub, or go on with it"),
        Binding("c", "cancel", "Cancel", tooltip="End the download; what is here is kept"),
        Binding("l", "load", "Load/unload", tooltip="Bring it into memory, or free it"),
        Binding("n", "pin", "Pin", tooltip="Keep it in memory, whatever others need"),
        Binding("t", "try", "Try it", tooltip="Embed two texts, or rank lines"),
        Binding("a", "add", "Add", tooltip="Add a repository of the hub"),
        Binding("e", "price", "Price", show=False, tooltip="Change what it costs"),
        Binding("v", "verify", "Verify", show=False, tooltip="Hash its file"),
        Binding("d", "remove", "Remove", show=False, tooltip="Remove its file"),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._models: dict[str, ModelView] = {}
        self._downloads: dict[str, DownloadView] = {}
        self._engines: EngineList | None = None

    def compose(self) -> ComposeResult:
        """Lay out the table over what is known of one row."""
        yield DataTable(id="models", cursor_type="row", zebra_stripes=True)
        yield Static(id="model-detail", classes="detail")
        yield Label("", id="devices", classes="hint")

    def on_mount(self) -> None:
        """Name the columns."""
        table = self.query_one("#models", DataTable)
        for title, width in COLUMNS:
            table.add_column(title, width=width, key=title)

    def show(
        self, models: list[ModelView], downloads: list[DownloadView], engines: EngineList
    ) -> None:
        """Draw what is here now; the cursor stays on its model."""
        self._models = {model.id: model for model in models}
        self._downloads = {each.model: each for each in downloads}
        self._engines = engines
        table = self.query_one("#models", DataTable)
        known = [str(key.value) for key in table.rows]
        if known != list(self._models):
            chosen = self._chosen()
            table.clear()
            for model in models:
                table.add_row(*self._row(model), key=model.id)
            if chosen is not None and chosen.id in self._models:
                table.move_cursor(row=table.get_row_index(chosen.id))
        else:
            for model in models:
                for (title, _), cell in zip(COLUMNS, self._row(model), strict=True):
                    table.update_cell(model.id, title, cell)
        self._show_detail()
        free = ", ".join(
            f"{plain(d.description or d.name)} ({d.kind}, {figures.size(d.free)} free)"
            for d in engines.devices
        )
        limit = figures.size(engines.memory_max) if engines.memory_max else "no limit"
        self.query_one("#devices", Label).update(
            Text(f"{free}   models take {figures.size(engines.memory_taken)} of {limit}")
        )

    def _row(self, model: ModelView) -> tuple[Text, ...]:
        price = f"{figures.money(model.pricing.realtime)}/{model.pricing.unit.split()[0]}"
        return (
            inert(model.id, width=38), Text(model.task),
            Text(figures.number(model.params) if model.params else "?"), self._state(model),
            Text(price), inert(model.license, width=12),
        )  # fmt: skip

    def _state(self, model: ModelView) -> Text:
        download, engine = self._downloads.get(model.id), self._engine(model)
        if download is not None and download.state in RUNNING:
            return _coming(download)
        if engine is not None and engine.state == "loading":
            return Text(f"{figures.bar(engine.progress, BAR)} loading", style="bold")
        if engine is not None and engine.state != "absent":
            pin = " pinned" if engine.pinned else ""
            size = figures.size(engine.bytes)
            return Text(f"\u25cf {engine.state}{pin} {size}", style="bold")
        if model.loaded:
            return Text("\u25cf loaded, shared", style="bold")
        if model.available:
            return Text("\u25cb here, not in memory")
        return _absent(model, download)

    def _engine(self, model: ModelView) -> EngineView | None:
        assert self._engines is not None
        return next((e for e in self._engines.data if e.model == model.id), None)

    def _chosen(self) -> ModelView | None:
        return self._models.get(self.under_cursor())

    def on_data_table_row_highlighted(self) -> None:
        """Show what is known of the row under the cursor."""
        self._show_detail()

    def _show_detail(self) -> None:
        model = self._chosen()
        if model is None:
            return
        facts = [f"{model.max_input_tokens} tokens"]
        facts += [f"{model.dimensions} dimensions"] if model.dimensions else []
        facts += [model.quantization] if model.quantization else []
        facts += ["also " + ", ".join(map(plain, model.aliases))] if model.aliases else []
        download = self._downloads.get(model.id)
        why = (download.error if download and download.error else None) or model.reason
        text = Text(f"{plain(model.description)}\n{'; '.join(facts)}")
        if why:
            text.append(f"\n{plain(why)}", style="bold")
        self.query_one("#model-detail", Static).update(text)

    # -- verbs ---------------------------------------------------------------------------------

    def action_pull(self) -> None:
        """Fetch the model."""
        model = self._chosen()
        if model is not None:
            self.order(f"Fetching {plain(model.id)}", lambda: self._desk.pull(model.id))

    def action_cancel(self) -> None:
        """End its download."""
        model = self._chosen()
        download = self._downloads.get(model.id) if model else None
        if download is not None and download.state in RUNNING:
            self.order("Cancelled", lambda: self._desk.cancel(download.id))

    def action_load(self) -> None:
        """Bring it into memory, or free it."""
        model = self._chosen()
        if model is None:
            return
        if model.loaded:
            self.order(f"{plain(model.id)} is free", lambda: self._desk.unload(model.id))
        else:
            self.order(f"{plain(model.id)} is loaded", lambda: self._desk.load(model.id))

    def action_pin(self) -> None:
        """Keep it in memory, or no longer."""
        model = self._chosen()
        if model is not None:
            engine = self._engine(model)
            on = not (engine is not None and engine.pinned)
            self.order(
                "Pinned" if on else "No longer pinned", lambda: self._desk.pin(model.id, on=on)
            )

    def action_verify(self) -> None:
        """Hash its file."""
        model = self._chosen()
        if model is not None:
            self._verify(model.id)

    @work(group="verb")
    async def _verify(self, model: str) -> None:
        try:
            found = await self._desk.verify(model)
        except (Lost, Refused) as error:
            self.refused(error)
            return
        good = {True: "is what the catalogue names", None: "has no sha256 in the catalogue"}
        said = good.get(found.matches, "is NOT what the catalogue names: remove it and pull again")
        self.notify(
            f"{plain(found.file)} {said}",
            severity="error" if found.matches is False else "information",
        )

    @work(group="verb")
    async def action_remove(self) -> None:
        """Remove its file, after a question."""
        model = self._chosen()
        if model is None:
            return
        asked = Confirm(f"Remove the file of {plain(model.id)}?", yes="Remove")
        if await self.app.push_screen_wait(asked):
            self.order(f"{plain(model.id)} is removed", lambda: self._desk.remove(model.id))

    @work(group="verb")
    async def action_add(self) -> None:
        """Add a repository of the hub."""
        form = Form(
            "Add a model from the hub",
            [Field("repo", "Repository", hint="owner/name or owner/name:file.gguf"),
             Field("id", "Id for clients", hint="the repository's name if empty")],
            done="Add",
        )  # fmt: skip
        given = await self.app.push_screen_wait(form)
        if given is None or not given["repo"]:
            return
        repo, _, file = given["repo"].partition(":")
        order = HubModelOrder(repo=repo, file=file or None, id=given["id"] or None)
        self.order(f"{plain(repo)} is in the catalogue: p pulls it", lambda: self._desk.add(order))

    @work(group="verb")
    async def action_price(self) -> None:
        """Change what it costs."""
        model = self._chosen()
        if model is None:
            return
        field = Field("price", f"Credits for {model.pricing.unit}", f"{model.pricing.realtime:f}")
        given = await self.app.push_screen_wait(
            Form(f"Price of {plain(model.id)} (half of it in the batch tier)", [field], done="Set")
        )
        if given is not None:
            self.order(
                "New calls pay the new price", lambda: self._desk.price(model.id, given["price"])
            )

    def action_try(self) -> None:
        """Open the pane that tries a model."""
        model = self._chosen()
        if model is not None:
            self.app.push_screen(Trial(self._desk, model))


def _coming(download: DownloadView) -> Text:
    share = download.bytes / download.bytes_total if download.bytes_total else 0.0
    rate = f" {figures.size(download.rate)}/s" if download.rate else ""
    left = "" if download.eta_s is None else f" {figures.duration(download.eta_s)}"
    state = "" if download.state == "fetching" else f" {download.state}"
    return Text(f"{figures.bar(share, BAR)} {share:4.0%}{rate}{left}{state}", style="bold")


def _absent(model: ModelView, download: DownloadView | None) -> Text:
    if download is not None and download.state == "failed":
        return Text("! failed: p tries again", style="bold red")
    if download is not None and download.state == "cancelled":
        return Text("\u00bd cancelled: p goes on")
    can_be_pulled = "not on this machine" in (model.reason or "")
    return Text("\u2193 can be pulled" if can_be_pulled else "! unusable")
