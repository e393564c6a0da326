"""Keys: the tab with all keys, their balances and limits.

Owns the table, and the dialogs of minting, topping up, rotating and revoking.
"""

from collections.abc import Awaitable, Mapping
from decimal import Decimal
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Label

from appliance.client import verbs
from appliance.core.errors import ServerUnreachable
from appliance.wire.keys import KeyView, MintOrder, Plaintext, RotateOrder, TopUpOrder
from appliance.wire.stats import Stats
from appliance.wire.usage import UsageReport
from tui import figures
from tui.connection import Connection
from tui.inert import inert, plain
from tui.screens import checks
from tui.screens.allowance import limits_of, share_left, state_of
from tui.screens.dialogs import Confirm, Secret
from tui.screens.form import Field, Form
from tui.screens.page import Page, Subject
from tui.screens.pane import Column, Pane

MINT_FIELDS = (
    Field("name", "Name", hint="whose it is", check=checks.required),
    Field("credit", "Credit in USD, or unlimited", "5", check=checks.amount_or_unlimited),
    Field("daily_budget", "Daily budget in USD", hint="none", check=checks.optional_amount),
    Field("rpm", "Requests a minute", hint="any", check=checks.optional_count),
    Field("tpm", "Tokens a minute", hint="any", check=checks.optional_count),
    Field("concurrency", "Calls at one time", hint="any", check=checks.optional_count),
    Field("models", "Models, separated by commas", hint="all", params=("model",)),
    Field("expires", "Expires in", hint="never; 30d", check=checks.optional_time),
)


OF_LIVE_KEYS = ("top_up", "rotate", "revoke")
NUMBERS = ("rpm", "tpm", "concurrency")


class Keys(Pane):
    """The table of keys."""

    COLUMNS = (
        Column("name", 15, 24),
        Column("balance", 16, 18),
        Column("today", 9),
        Column("state", 9),
        Column("limits", 19, 34),
        Column("key", 14, since=120),
        Column("models", 14, 20, since=140),
        Column("last used", 10, since=160),
        Column("created", 10, since=172),
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "mint", "Mint", tooltip="Make a key"),
        Binding("t", "top_up", "Top up"),
        Binding("o", "rotate", "Rotate", tooltip="A new plaintext; the old one works for a day"),
        Binding("r", "revoke", "Revoke"),
        Binding("enter", "page", "Page", tooltip="What this key did"),
        Binding("a", "all", "All", tooltip="Revoked keys too, or live ones alone"),
    ]

    def __init__(self, client: Connection, model: str) -> None:
        super().__init__()
        self._client, self._model = client, model
        self._keys: dict[str, KeyView] = {}
        self._spent: dict[str, Decimal] = {}
        self._stats: Stats | None = None
        self._with_ended = False

    def compose(self) -> ComposeResult:
        """Lay out the table."""
        yield DataTable(id="keys", cursor_type="row", zebra_stripes=True)
        yield Label("", id="keys-hint", classes="hint")

    def show(self, keys: list[KeyView], stats: Stats) -> None:
        """Draw keys; the cursor stays on its key."""
        self._stats = stats
        self._keys = {key.id: key for key in keys}
        self._draw()

    def _draw(self) -> None:
        keys = list(self._keys.values())
        shown = [key for key in keys if self._with_ended or key.revoked is None]
        self.fill({key.id: _row(key, self._spent_by(key), self._stats) for key in shown})
        self.offer()
        ended = len(keys) - len(shown)
        said = "1 key" if len(shown) == 1 else f"{len(shown)} keys"
        said = said if shown else "No keys yet: m mints the first one"
        self.query_one("#keys-hint", Label).update(
            said + (f"; {ended} revoked (a)" if ended else "")
        )

    def count(self, report: UsageReport) -> None:
        """Take what each key ever spent: balances are drawn against what was granted."""
        self._spent = {row.group: row.credits for row in report.data}
        self._draw()

    def _spent_by(self, key: KeyView) -> Decimal:
        return self._spent.get(key.id, Decimal(0))

    def action_all(self) -> None:
        """Show or hide revoked keys."""
        self._with_ended = not self._with_ended
        self._draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done with the row under the cursor."""
        del parameters
        if not self.is_mounted or action in ("mint", "all"):
            return True
        key = self._chosen()
        if key is None:
            return action not in (*OF_LIVE_KEYS, "page")
        return key.revoked is None or action not in OF_LIVE_KEYS

    def on_data_table_row_highlighted(self) -> None:
        """Offer what can be done with the key under the cursor."""
        self.offer()

    def _chosen(self) -> KeyView | None:
        return self._keys.get(self.under_cursor())

    async def _secret(self, verb: Awaitable[Plaintext]) -> None:
        try:
            minted = await verb
        except ServerUnreachable as error:
            self.refused(error)
        else:
            await self._show_secret(minted)

    async def _show_secret(self, minted: Plaintext) -> None:
        url = self._client.url
        await self.app.push_screen_wait(Secret(minted.name, minted.key, url, self._model))

    @work(group="verb")
    async def action_mint(self) -> None:
        """Make a key and show it once."""

        async def send(given: Mapping[str, str]) -> Plaintext:
            return await self._client.do(verbs.MINT, order=_mint_order(given))

        minted = await self.app.push_screen_wait(Form("Mint a key", MINT_FIELDS, send, done="Mint"))
        if minted is not None:
            await self._show_secret(minted)

    @work(group="verb")
    async def action_top_up(self) -> None:
        """Add credits."""
        key = self._chosen()
        if key is None:
            return

        async def send(given: Mapping[str, str]) -> str:
            await self._client.do(verbs.TOP_UP, key.id, order=TopUpOrder(given["credit"]))
            return given["credit"]

        fields = [Field("credit", "Credits in USD", "5", check=checks.more)]
        form = Form(f"Top up {plain(key.name)}", fields, send, done="Add")
        added = await self.app.push_screen_wait(form)
        if added is not None:
            self.notify(f"{plain(key.name)} has {plain(added)} more")

    @work(group="verb")
    async def action_rotate(self) -> None:
        """Give a key a new plaintext."""
        key = self._chosen()
        if key is None:
            return
        asked = Confirm(f"A new plaintext for {plain(key.name)}? The old one works for 24 hours.")
        if await self.app.push_screen_wait(asked):
            await self._secret(self._client.do(verbs.ROTATE, key.id, order=RotateOrder()))

    @work(group="verb")
    async def action_revoke(self) -> None:
        """Refuse a key from now on."""
        key = self._chosen()
        if key is None:
            return
        asked = Confirm(f"Revoke {plain(key.name)}? This cannot be undone.", yes="Revoke")
        if await self.app.push_screen_wait(asked):
            self.order(
                f"{plain(key.name)} is revoked", lambda: self._client.do(verbs.REVOKE, key.id)
            )

    def on_data_table_row_selected(self) -> None:
        """Open the page of the key under the cursor."""
        self.action_page()

    def action_page(self) -> None:
        """Open a key's page."""
        key = self._chosen()
        if key is not None:
            self.app.push_screen(Page(self._client, _subject(key)))


def _mint_order(given: Mapping[str, str]) -> MintOrder:
    rpm, tpm, concurrency = (int(given[n]) if given[n] else None for n in NUMBERS)
    return MintOrder(
        name=given["name"],
        credit=given["credit"] or "0",
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        daily_budget=given["daily_budget"] or None,
        expires=given["expires"] or None,
        models=[m.strip() for m in given["models"].split(",") if m.strip()] or None,
    )


def _row(key: KeyView, spent: Decimal, stats: Stats | None) -> tuple[Text, ...]:
    if key.credit is None:
        balance = Text("unlimited")
    else:
        left = figures.bar(share_left(key, spent), 6)
        balance = Text(f"{left} {figures.money(key.credit)}")
    state = state_of(key, spent, stats)
    look = {"revoked": "dim strike", "forgotten": "dim strike", "live": ""}.get(state, "bold")
    models = f"{len(key.models)} chosen" if key.models else "all"
    return (
        inert(key.name, width=24),
        balance,
        Text(figures.money(key.spent_today), justify="right"),
        Text(state, style=look),
        Text(limits_of(key)),
        inert(key.hint, width=14),
        Text(models),
        Text(_day(key.last_used) or "never"),
        Text(_day(key.created)),
    )


def _day(moment: str | None) -> str:
    return (moment or "")[:10]


def _subject(key: KeyView) -> Subject:
    return Subject(
        name=f"Key {key.name}",
        facts=(
            ("id", key.id),
            ("key", key.hint),
            ("balance", figures.money(key.credit)),
            ("last used", (key.last_used or "never")[:19]),
            ("created", key.created[:19]),
            ("expires", key.expires or "never"),
            ("scopes", ", ".join(key.scopes)),
            ("models", ", ".join(key.models) if key.models else "all"),
        ),
        other="model",
        key=key.id,
        is_its=lambda call: call.key == key.name,
        limited=key,
    )
