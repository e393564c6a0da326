"""Keys: who may call, what they have left, and the page of one of them.

Owns the table and the dialogs of minting, topping up, rotating and revoking.
"""

from collections.abc import Awaitable
from decimal import Decimal
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Label, Static

from appliance.wire.keys import KeyView, MintOrder, Plaintext
from appliance.wire.usage import UsageReport
from tui import figures
from tui.gateway import Desk, Lost, Refused
from tui.inert import inert, plain
from tui.screens.dialogs import Confirm, Field, Form, Secret
from tui.screens.pane import Pane

COLUMNS = (
    ("name", 18), ("key", 14), ("state", 10), ("balance", 18), ("today", 8), ("limits", 24),
)  # fmt: skip
MINT_FIELDS = (
    Field("name", "Name", hint="whose it is"),
    Field("credit", "Credit in USD, or unlimited", "5"),
    Field("daily_budget", "Daily budget in USD", hint="none"),
    Field("rpm", "Requests a minute", hint="any"),
    Field("tpm", "Tokens a minute", hint="any"),
    Field("concurrency", "Calls at one time", hint="any"),
    Field("models", "Models, separated by commas", hint="all"),
    Field("expires", "Expires in", hint="never; 30d"),
)
NUMBERS = ("rpm", "tpm", "concurrency")


class Keys(Pane):
    """The table of keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "mint", "Mint", tooltip="Make a key"),
        Binding("t", "top_up", "Top up"),
        Binding("o", "rotate", "Rotate", tooltip="A new plaintext; the old one works for a day"),
        Binding("r", "revoke", "Revoke"),
        Binding("enter", "page", "Page", tooltip="What this key did"),
    ]

    def __init__(self, desk: Desk, model: str) -> None:
        super().__init__()
        self._desk, self._model = desk, model
        self._keys: dict[str, KeyView] = {}

    def compose(self) -> ComposeResult:
        """Lay out the table."""
        yield DataTable(id="keys", cursor_type="row", zebra_stripes=True)
        yield Label("", id="keys-hint", classes="hint")

    def on_mount(self) -> None:
        """Name the columns."""
        table = self.query_one("#keys", DataTable)
        for title, width in COLUMNS:
            table.add_column(title, width=width, key=title)

    def show(self, keys: list[KeyView]) -> None:
        """Draw the keys as they are now; the cursor stays on its key."""
        chosen = self._chosen()
        self._keys = {key.id: key for key in keys}
        table = self.query_one("#keys", DataTable)
        table.clear()
        richest = max((k.credit for k in keys if k.credit is not None), default=Decimal(0))
        for key in keys:
            table.add_row(*_row(key, richest), key=key.id)
        if chosen is not None and chosen.id in self._keys:
            table.move_cursor(row=table.get_row_index(chosen.id))
        self.query_one("#keys-hint", Label).update(
            f"{len(keys)} keys" if keys else "No keys yet: m mints the first one"
        )

    def _chosen(self) -> KeyView | None:
        return self._keys.get(self.under_cursor())

    async def _secret(self, verb: Awaitable[Plaintext]) -> None:
        try:
            minted = await verb
        except (Lost, Refused) as error:
            self.refused(error)
            return
        url = self._desk.gateway.url
        await self.app.push_screen_wait(Secret(minted.name, minted.key, url, self._model))

    @work(group="verb")
    async def action_mint(self) -> None:
        """Make a key and show it once."""
        given = await self.app.push_screen_wait(Form("Mint a key", MINT_FIELDS, done="Mint"))
        if given is None:
            return
        try:
            rpm, tpm, concurrency = (int(given[n]) if given[n] else None for n in NUMBERS)
        except ValueError:
            self.notify("Requests, tokens and calls are whole numbers", severity="error")
            return
        order = MintOrder(
            name=given["name"], credit=given["credit"] or "0", rpm=rpm, tpm=tpm,
            concurrency=concurrency, daily_budget=given["daily_budget"] or None,
            expires=given["expires"] or None,
            models=[m.strip() for m in given["models"].split(",") if m.strip()] or None,
        )  # fmt: skip
        await self._secret(self._desk.mint(order))

    @work(group="verb")
    async def action_top_up(self) -> None:
        """Add credits."""
        key = self._chosen()
        if key is None:
            return
        form = Form(
            f"Top up {plain(key.name)}", [Field("credit", "Credits in USD", "5")], done="Add"
        )
        given = await self.app.push_screen_wait(form)
        if given is not None:
            self.order(
                f"{plain(key.name)} has {plain(given['credit'])} more",
                lambda: self._desk.top_up(key.id, given["credit"]),
            )

    @work(group="verb")
    async def action_rotate(self) -> None:
        """Give a key a new plaintext."""
        key = self._chosen()
        if key is None:
            return
        asked = Confirm(f"A new plaintext for {plain(key.name)}? The old one works for 24 hours.")
        if await self.app.push_screen_wait(asked):
            await self._secret(self._desk.rotate(key.id))

    @work(group="verb")
    async def action_revoke(self) -> None:
        """Refuse a key from now on."""
        key = self._chosen()
        if key is None:
            return
        asked = Confirm(f"Revoke {plain(key.name)}? This cannot be undone.", yes="Revoke")
        if await self.app.push_screen_wait(asked):
            self.order(f"{plain(key.name)} is revoked", lambda: self._desk.revoke(key.id))

    def on_data_table_row_selected(self) -> None:
        """Open the page of the key under the cursor."""
        self.action_page()

    def action_page(self) -> None:
        """Open a key's page."""
        key = self._chosen()
        if key is not None:
            self.app.push_screen(Page(self._desk, key))


def _row(key: KeyView, richest: Decimal) -> tuple[Text, ...]:
    if key.credit is None:
        balance = Text("unlimited")
    else:
        share = float(key.credit / richest) if richest else 0.0
        balance = Text(f"{figures.bar(share, 10)} {figures.money(key.credit)}")
    limits = [
        f"{value}{unit}"
        for value, unit in (
            (key.rpm, " req/min"),
            (key.tpm, " tok/min"),
            (key.concurrency, " at once"),
        )
        if value is not None
    ]
    if key.daily_budget is not None:
        limits.append(f"{figures.money(key.daily_budget)}/day")
    state = "forgotten" if key.forgotten else "revoked" if key.revoked else "live"
    if state == "live" and key.expires:
        state = f"to {key.expires[5:10]}"
    return (
        inert(key.name, width=18), inert(key.hint, width=14),
        Text(state, style="" if state not in ("revoked", "forgotten") else "dim strike"),
        balance, Text(figures.money(key.spent_today)), Text(", ".join(limits) or "none"),
    )  # fmt: skip


class Page(ModalScreen[None]):
    """One key: what it did, by day and by model."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "leave", "Close")]

    def __init__(self, desk: Desk, key: KeyView) -> None:
        super().__init__()
        self._desk, self._key = desk, key

    def compose(self) -> ComposeResult:
        """Lay out facts over usage."""
        with VerticalScroll(classes="dialog"):
            yield Label(inert(self._key.name), classes="heading")
            yield Static(id="facts")
            yield Static("reading\u2026", id="by-day")
            yield Static(id="of-models")
            yield Static(id="of-calls")

    def on_mount(self) -> None:
        """Read what it did."""
        key = self._key
        facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in (
            ("id", key.id), ("key", key.hint), ("balance", figures.money(key.credit)),
            ("spent today", figures.money(key.spent_today)), ("created", key.created[:19]),
            ("expires", key.expires or "never"), ("scopes", ", ".join(key.scopes)),
            ("models", ", ".join(key.models) if key.models else "all"),
        ):  # fmt: skip
            facts.add_row(name, inert(value))
        self.query_one("#facts", Static).update(facts)
        self._read()

    @work(exclusive=True)
    async def _read(self) -> None:
        try:
            days = await self._desk.usage("day", "14d", self._key.id)
            models = await self._desk.usage("model", "all", self._key.id)
            stats = await self._desk.stats()
        except (Lost, Refused) as error:
            self.query_one("#by-day", Static).update(Text(plain(str(error)), style="bold red"))
            return
        self.query_one("#by-day", Static).update(_chart(days, "the last 14 days"))
        self.query_one("#of-models", Static).update(_chart(models, "by model"))
        lines = [
            f"{call.at[11:19]} {call.status} {plain(call.code or call.model, width=30)} "
            f"{figures.money(call.cost)} {figures.ms(call.ms)}"
            for call in stats.recent
            if call.key == self._key.name
        ]
        self.query_one("#of-calls", Static).update(
            Text("\n".join(["last calls", *lines[:8]]) if lines else "no calls lately")
        )

    def action_leave(self) -> None:
        """Close the page."""
        self.dismiss(None)


def _chart(report: UsageReport, title: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for column in (report.by, "", "credits", "calls"):
        table.add_column(column, no_wrap=True)
    highest = max((row.credits for row in report.data), default=Decimal(0))
    for row in report.data:
        share = float(row.credits / highest) if highest else 0.0
        table.add_row(
            inert(row.group, width=34), figures.bar(share, 16), figures.money(row.credits),
            figures.number(row.calls),
        )  # fmt: skip
    return table
