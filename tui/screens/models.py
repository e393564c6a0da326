"""Models: the tab with the catalogue, what of it is here, and the downloads.

Owns the table, and the pairing of key presses with verbs.
"""

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label, Static

from appliance.client import verbs
from appliance.core.errors import ServerUnreachable
from appliance.wire.additions import AdditionView
from appliance.wire.downloads import DownloadView, HubModelOrder
from appliance.wire.engines import EngineList, EngineView, PinOrder
from appliance.wire.models import AliasOrder, ModelOrder, ModelView, PriceOrder
from tui import figures
from tui.connection import Connection
from tui.inert import plain
from tui.screens import checks
from tui.screens.dialogs import Confirm
from tui.screens.form import Field, Form
from tui.screens.model import (
    RUNNING,
    added_row_of,
    addition_detail_of,
    detail_of,
    row_of,
    subject_of,
)
from tui.screens.page import Page
from tui.screens.pane import Column, Pane
from tui.screens.trial import Trial

ANYWHERE = ("verify", "remove", "edit", "page")
"""Actions on any model of the catalogue; without a row they do nothing."""
PROMPT_S = 3.0
"""Seconds that the form waits for a refusal of what it sent."""
ADD_FIELDS = (
    Field(
        "repo",
        "Repository",
        hint="owner/name or owner/name:file.gguf",
        check=checks.repository,
        params=("file",),
    ),
    Field("id", "Id for clients", hint="the repository's name if empty"),
    Field("pooling", "Pooling", hint="mean, cls, last, or what files say"),
    Field(
        "replace",
        "Replace that model",
        hint="yes: if there is one with this id",
        check=checks.yes_or_no,
    ),
)
NOTE_CHARS_MAX = 400
NOTE_S = 15.0
"""Seconds that is shown what was assumed of a model."""


class Models(Pane):
    """The table of models."""

    COLUMNS = (
        Column("model", 28, 42),
        Column("task", 6),
        Column("size", 7),
        Column("fit", 7),
        Column("state", 20, 28),
        Column("price", 12, since=100),
        Column("license", 14, since=140),
        Column("context", 7, since=150),
        Column("dims", 5, since=160),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pull", "Pull", tooltip="Fetch the model from the hub, or go on with it"),
        Binding("c", "cancel", "Cancel", tooltip="End the download or the addition"),
        Binding("l", "load", "Load", tooltip="Bring it into memory"),
        Binding("l", "unload", "Unload", tooltip="Free the memory that it takes"),
        Binding("n", "pin", "Pin", tooltip="Keep it in memory, whatever others need"),
        Binding("n", "unpin", "Unpin", tooltip="Let others have its memory when they need it"),
        Binding("t", "try", "Try it", tooltip="Embed two texts, or rank lines"),
        Binding("a", "add", "Add", tooltip="Add a repository of the hub"),
        Binding("e", "edit", "Edit", tooltip="Change what it costs and its other names"),
        Binding("v", "verify", "Verify", show=False, tooltip="Hash its file"),
        Binding("d", "remove", "Remove", show=False, tooltip="Remove its file"),
        Binding("enter", "page", "Page", show=False, tooltip="What this model did, and for whom"),
    ]

    def __init__(self, client: Connection) -> None:
        super().__init__()
        self._client = client
        self._models: dict[str, ModelView] = {}
        self._downloads: dict[str, DownloadView] = {}
        self._additions: dict[str, AdditionView] = {}
        self._engines: dict[str, EngineView] = {}

    def compose(self) -> ComposeResult:
        """Lay out the table above the details of one model."""
        yield DataTable(id="models", cursor_type="row", zebra_stripes=True)
        yield Static(id="model-detail", classes="detail")
        yield Label("", id="devices", classes="hint")

    def show(
        self,
        models: list[ModelView],
        downloads: list[DownloadView],
        additions: list[AdditionView],
        engines: EngineList,
    ) -> None:
        """Draw models with their downloads and engines; the cursor stays on its model.

        A model that is being added has a row of its own until it is in the catalogue.
        """
        self._models = {model.id: model for model in models}
        self._downloads = {each.model: each for each in downloads}
        self._additions = {each.model: each for each in additions}
        self._engines = {each.model: each for each in engines.data}
        width, rows = self.width_of("model"), {}
        for name, model in self._models.items():
            download, engine = self._downloads.get(name), self._engines.get(name)
            addition = self._additions.get(name)
            rows[name] = row_of(model, download, addition, engine, engines, width)
        for name, addition in self._additions.items():
            if name not in rows:
                rows[name] = added_row_of(addition, width)
        self.fill(rows)
        self._show_detail()
        self.offer()
        free = ", ".join(
            f"{plain(d.description or d.name)} ({d.kind}, {figures.size(d.free)} free)"
            for d in engines.devices
        )
        limit = figures.size(engines.memory_max) if engines.memory_max else "no limit"
        self.query_one("#devices", Label).update(
            Text(f"{free}   models take {figures.size(engines.memory_taken)} of {limit}")
        )

    def _chosen(self) -> ModelView | None:
        return self._models.get(self.under_cursor())

    def on_data_table_row_highlighted(self) -> None:
        """Show the details of the model under the cursor."""
        self._show_detail()
        self.offer()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done with the row under the cursor."""
        del parameters
        if not self.is_mounted or action in ("add", *ANYWHERE):
            return True
        model, download = self._chosen(), self._downloads.get(self.under_cursor())
        is_coming = download is not None and download.state in RUNNING
        if action == "cancel":
            return is_coming or self.under_cursor() in self._additions
        if model is None:
            return False
        engine = self._engines.get(model.id)
        is_pinned = engine is not None and engine.pinned
        return {
            "pull": not model.available and not is_coming,
            "load": model.available and not model.loaded,
            "unload": model.loaded,
            "pin": not is_pinned,
            "unpin": is_pinned,
            "try": model.available,
        }.get(action, True)

    def _show_detail(self) -> None:
        model, addition = self._chosen(), self._additions.get(self.under_cursor())
        if addition is not None:
            self.query_one("#model-detail", Static).update(addition_detail_of(addition))
        elif model is not None:
            self.query_one("#model-detail", Static).update(
                detail_of(model, self._downloads.get(model.id))
            )

    # -- verbs ---------------------------------------------------------------------------------

    def action_pull(self) -> None:
        """Start to fetch the model."""
        model = self._chosen()
        if model is not None:
            self.order(
                f"Fetching {plain(model.id)}",
                lambda: self._client.do(verbs.PULL_MODEL, order=ModelOrder(model.id)),
            )

    def action_cancel(self) -> None:
        """Cancel its addition, or its download."""
        model, addition = self._chosen(), self._additions.get(self.under_cursor())
        if addition is not None:
            self.order("Cancelled", lambda: self._client.do(verbs.CANCEL_ADDITION, addition.id))
            return
        download = self._downloads.get(model.id) if model else None
        if download is not None and download.state in RUNNING:
            self.order("Cancelled", lambda: self._client.do(verbs.CANCEL_DOWNLOAD, download.id))

    def action_load(self) -> None:
        """Load the model."""
        model = self._chosen()
        if model is not None:
            self.order(
                f"{plain(model.id)} is loaded",
                lambda: self._client.do(verbs.LOAD_MODEL, order=ModelOrder(model.id)),
            )

    @work(group="verb")
    async def action_unload(self) -> None:
        """Unload the model; one that was pinned only after a confirmation."""
        model = self._chosen()
        if model is None:
            return
        engine = self._engines.get(model.id)
        if engine is not None and engine.pinned:
            asked = Confirm(
                f"{plain(model.id)} is pinned: somebody wants it to stay in memory. Unload it?",
                yes="Unload",
            )
            if not await self.app.push_screen_wait(asked):
                return
        self.order(
            f"{plain(model.id)} is out of memory",
            lambda: self._client.do(verbs.UNLOAD_MODEL, order=ModelOrder(model.id)),
        )

    def action_pin(self) -> None:
        """Pin the model in memory."""
        self._pin(on=True)

    def action_unpin(self) -> None:
        """Unpin the model."""
        self._pin(on=False)

    def _pin(self, *, on: bool) -> None:
        model = self._chosen()
        if model is not None:
            self.order(
                "Pinned" if on else "No longer pinned",
                lambda: self._client.do(verbs.PIN_MODEL, order=PinOrder(model.id, on)),
            )

    def action_verify(self) -> None:
        """Check its file against the catalogue."""
        model = self._chosen()
        if model is not None:
            self._verify(model.id)

    @work(group="verb")
    async def _verify(self, model: str) -> None:
        try:
            found = await self._client.do(verbs.VERIFY_MODEL, order=ModelOrder(model))
        except ServerUnreachable as error:
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
        """Remove its file, after a confirmation."""
        model = self._chosen()
        if model is None:
            return
        asked = Confirm(f"Remove the file of {plain(model.id)}?", yes="Remove")
        if await self.app.push_screen_wait(asked):
            self.order(
                f"{plain(model.id)} is removed",
                lambda: self._client.do(verbs.REMOVE_MODEL, order=ModelOrder(model.id)),
            )

    @work(group="verb")
    async def action_add(self) -> None:
        """Add a repository of the hub."""

        async def send(given: Mapping[str, str]) -> asyncio.Task[ModelView]:
            # A conversion takes minutes: only what is refused at once is said in the form.
            adding = asyncio.ensure_future(
                self._client.do(verbs.ADD_FROM_HUB, order=_hub_order(given))
            )
            done, _ = await asyncio.wait({adding}, timeout=PROMPT_S)
            for each in done:
                each.result()
            return adding

        form = Form("Add a model from the hub", ADD_FIELDS, send, done="Add")
        adding = await self.app.push_screen_wait(form)
        if adding is None:
            return
        try:
            added = await adding
        except ServerUnreachable as error:
            self.refused(error)
            return
        if added.download is None:
            self.notify(f"{plain(added.id)} is in the catalogue: p pulls it")
        else:
            self.notify(f"{plain(added.id)} stays as it is until the new file is here and tried")
        for note in added.notes:
            self.notify(plain(note, width=NOTE_CHARS_MAX), timeout=NOTE_S)

    @work(group="verb")
    async def action_edit(self) -> None:
        """Change its price and its aliases."""
        model = self._chosen()
        if model is None:
            return
        price, names = f"{model.pricing.realtime:f}", ", ".join(model.aliases)
        set_already: set[str] = set()
        """What was done before the rest was refused: it is not sent again."""

        async def send(given: Mapping[str, str]) -> list[str]:
            said = []
            if given["price"] not in (price, *set_already):
                order = PriceOrder(model.id, given["price"])
                await self._client.do(verbs.PRICE_MODEL, order=order)
                set_already.add(given["price"])
            if set_already:
                said.append("New calls pay the new price")
            if given["aliases"] != names:
                wanted = [name.strip() for name in given["aliases"].split(",") if name.strip()]
                await self._client.do(verbs.ALIAS_MODEL, order=AliasOrder(model.id, wanted))
                said.append(f"{plain(model.id)} has other names")
            return said

        unit = model.pricing.unit
        fields = [
            Field("price", f"Credits for {unit}", price, check=checks.amount, params=("realtime",)),
            Field("aliases", "Other names, by commas", names, hint="none"),
        ]
        title = f"{plain(model.id)} (half the price in the batch tier)"
        for said in await self.app.push_screen_wait(Form(title, fields, send, done="Set")) or ():
            self.notify(said)

    def on_data_table_row_selected(self) -> None:
        """Open the page of the model under the cursor."""
        self.action_page()

    def action_page(self) -> None:
        """Open a model's page."""
        model = self._chosen()
        if model is not None:
            self.app.push_screen(Page(self._client, subject_of(model, self._engines.get(model.id))))

    def action_try(self) -> None:
        """Open the dialog that tries the model."""
        model = self._chosen()
        if model is not None:
            self.app.push_screen(Trial(self._client, model))


def _hub_order(given: Mapping[str, str]) -> HubModelOrder:
    repo, _, file = given["repo"].partition(":")
    return HubModelOrder(
        repo=repo,
        file=file or None,
        id=given["id"] or None,
        pooling=given["pooling"] or None,
        replace=given["replace"].lower() in checks.YES,
    )
