"""Models: the tab with the catalogue, what of it is here, and the downloads.

Owns the table, and the pairing of key presses with verbs.
"""

from dataclasses import replace
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Input, Label, Static

from appliance.client import verbs
from appliance.core.errors import ServerUnreachable
from appliance.wire.additions import AdditionView
from appliance.wire.downloads import DownloadView
from appliance.wire.engines import EngineList, EngineView, PinOrder
from appliance.wire.models import ModelOrder, ModelView
from tui import figures
from tui.connection import Connection
from tui.fit import size_of
from tui.inert import plain
from tui.screens import model_forms
from tui.screens.dialogs import Confirm
from tui.screens.model import (
    RUNNING,
    STOPPED,
    added_row_of,
    addition_detail_of,
    detail_of,
    row_of,
    subject_of,
)
from tui.screens.page import Page
from tui.screens.pane import Column, Pane
from tui.screens.selection import TASKS, Wanted, models_shown
from tui.screens.trial import Trial

NOTE_CHARS_MAX = 400
NOTE_S = 15.0
"""Seconds that is shown what was assumed of a model."""


class Models(Pane):
    """The table of models."""

    FREE = ("add", "search", "task", "fits", "here")
    COLUMNS = (
        Column("model", 28, 42),
        Column("task", 6),
        Column("size", 7),
        Column("fit", 7),
        Column("state", 20, 28),
        Column("price", 16, since=100),
        Column("license", 14, since=140),
        Column("context", 7, since=150),
        Column("dims", 5, since=160),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pull", "Pull", tooltip="Fetch the model from the hub"),
        Binding("p", "resume", "Go on", tooltip="Fetch the rest of it"),
        Binding("c", "cancel", "Cancel", tooltip="End the download or the addition"),
        Binding("l", "load", "Load", tooltip="Bring it into memory"),
        Binding("l", "unload", "Unload", tooltip="Free the memory that it takes"),
        Binding("n", "pin", "Pin", tooltip="Keep it in memory, whatever others need"),
        Binding("n", "unpin", "Unpin", tooltip="Let others have its memory when they need it"),
        Binding("t", "try", "Try it", tooltip="Embed two texts, or rank lines"),
        Binding("a", "add", "Add", tooltip="Add a repository of the hub"),
        Binding("e", "edit", "Edit", tooltip="Change what it costs and its other names"),
        Binding("k", "task", "Task", show=False, tooltip="Show embeddings, rerank, or both"),
        Binding("f", "fits", "Fits", show=False, tooltip="Show only what fits this machine"),
        Binding("h", "here", "Here", show=False, tooltip="Show only what is on this machine"),
        Binding("v", "verify", "Verify", show=False, tooltip="Compare its file with its sha256"),
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
        self._machine: EngineList | None = None
        self._wanted = Wanted()

    def compose(self) -> ComposeResult:
        """Lay out the table above the details of one model."""
        yield Label("", id="models-hint", classes="hint")
        yield Input(placeholder="words of a name or a license", classes="search", compact=True)
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
        self._engines = {name: each for each in engines.data for name in (each.model, *each.also)}
        self._machine = engines
        self.draw()
        free = ", ".join(
            f"{plain(d.description or d.name)} ({d.kind}, {figures.size(d.free)} free)"
            for d in engines.devices
        )
        limit = figures.size(engines.memory_max) if engines.memory_max else "no limit"
        self.query_one("#devices", Label).update(
            Text(f"{free}   models take {figures.size(engines.memory_taken)} of {limit}")
        )

    def draw(self) -> None:
        """Draw the models that are wanted, and how many others there are."""
        machine, text = self._machine, self.searched
        if machine is None:
            return
        width, rows = self.width_of("model"), {}
        shown = models_shown(self._models.values(), self._wanted, machine, text=text)
        for model in shown:
            name = model.id
            download, engine = self._downloads.get(name), self._engines.get(name)
            rows[name] = row_of(model, download, self._additions.get(name), engine, machine, width)
        for name, addition in self._additions.items():
            if name not in self._models:
                rows[name] = added_row_of(addition, width)
        self.fill(rows)
        self._show_detail()
        self.offer()
        search = f"with {plain(text, width=20)} (esc: all)" if text else "/ filters"
        counted = f"{len(shown)} of {len(self._models)}"
        self.query_one("#models-hint", Label).update(
            Text("   ".join((counted, *self._wanted.said(), search)))
        )

    def action_task(self) -> None:
        """Show the models of the next task, or of all."""
        task = TASKS[(TASKS.index(self._wanted.task) + 1) % len(TASKS)]
        self._want(replace(self._wanted, task=task))

    def action_fits(self) -> None:
        """Show only what this machine has room and speed for, or everything."""
        self._want(replace(self._wanted, fits=not self._wanted.fits))

    def action_here(self) -> None:
        """Show only what is on this machine, or everything."""
        self._want(replace(self._wanted, here=not self._wanted.here))

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.draw()

    def seek(self, row: str, then: str = "") -> None:
        """Put the cursor on a model, whatever is filtered."""
        self._wanted = Wanted()
        super().seek(row, then)

    def _chosen(self) -> ModelView | None:
        return self._models.get(self.under_cursor())

    def on_data_table_row_highlighted(self) -> None:
        """Show the details of the model under the cursor."""
        self._show_detail()
        self.offer()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done with the row under the cursor."""
        del parameters
        if not self.is_mounted or action in self.FREE:
            return True
        if action == "show_all":
            return self.query_one(".search", Input).has_class("shown")
        row = self.under_cursor()
        if action == "cancel":
            return self._is_coming(row) or row in self._additions
        return row in self._models and self.can(action, row)

    def _is_coming(self, row: str) -> bool:
        download = self._downloads.get(row)
        return download is not None and download.state in RUNNING

    def can(self, action: str, row: str) -> bool:
        """Say whether an action can be done with a model now."""
        model, engine = self._models.get(row), self._engines.get(row)
        download = self._downloads.get(row)
        if model is None:
            return True
        is_coming = self._is_coming(row)
        is_pinned = engine is not None and engine.pinned
        is_partial = download is not None and download.state in STOPPED and not model.available
        return {
            "cancel": is_coming or row in self._additions,
            "pull": not model.available and not is_coming and not is_partial,
            "resume": is_partial,
            "verify": not model.missing,
            "remove": not model.missing,
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
                detail_of(model, self._downloads.get(model.id), self._machine)
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

    def action_resume(self) -> None:
        """Fetch the rest of the model."""
        self.action_pull()

    @work(group="verb")
    async def action_cancel(self) -> None:
        """Cancel its addition, after a confirmation, or its download, which can go on later."""
        model, addition = self._chosen(), self._additions.get(self.under_cursor())
        if addition is not None:
            asked = Confirm(
                f"End the addition of {plain(addition.model)}? What was done for it is lost.",
                yes="End it",
                no="Go on",
            )
            if not await self.app.push_screen_wait(asked):
                return
            self.order("Cancelled", lambda: self._client.do(verbs.CANCEL_ADDITION, addition.id))
            return
        download = self._downloads.get(model.id) if model else None
        if download is not None and download.state in RUNNING:
            self.order(
                "Stopped: what is here is kept",
                lambda: self._client.do(verbs.CANCEL_DOWNLOAD, download.id),
            )

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
            others = [name for name in (engine.model, *engine.also) if name != model.id]
            with_it = f" {plain(', '.join(others))} leaves with it." if others else ""
            asked = Confirm(
                f"{plain(model.id)} is pinned: somebody wants it to stay in memory.{with_it} "
                "Unload it?",
                yes="Unload",
            )
            if not await self.app.push_screen_wait(asked):
                return
        self.order(
            f"{plain(model.id)} is unloaded",
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
        good = {True: "is the catalogue's file", None: "has no sha256 in the catalogue"}
        said = good.get(found.matches, "is NOT the catalogue's file: remove it and pull again")
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
        size = figures.size(size_of(model))
        asked = Confirm(
            f"Remove the file of {plain(model.id)} ({size}) from this machine?", yes="Remove"
        )
        if await self.app.push_screen_wait(asked):
            self.order(
                f"{plain(model.id)} is removed",
                lambda: self._client.do(verbs.REMOVE_MODEL, order=ModelOrder(model.id)),
            )

    @work(group="verb")
    async def action_add(self) -> None:
        """Add a repository of the hub."""
        adding = await self.app.push_screen_wait(model_forms.adding(self._client))
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
        form = model_forms.editing(self._client, model)
        for said in await self.app.push_screen_wait(form) or ():
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
