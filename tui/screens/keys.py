"""Keys: the tab with all keys, their balances and limits.

Owns the table, and the pairing of key presses with verbs.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Input, Label

from appliance.client import verbs
from appliance.wire.keys import KeyView, Plaintext
from appliance.wire.stats import Stats
from appliance.wire.usage import UsageReport
from tui import figures
from tui.connection import Connection
from tui.inert import inert, plain
from tui.screens import key_forms
from tui.screens.allowance import limits_of, share_left, state_of
from tui.screens.dialogs import Confirm, Secret
from tui.screens.form import Form
from tui.screens.page import Page, Subject
from tui.screens.pane import Column, Pane
from tui.screens.selection import SORTS, keys_shown

OF_LIVE_KEYS = ("limit", "expire", "revoke")
"""What is done with every key that is not revoked."""
BAR = 5
SHORT = 4
"""Decimals of an amount in the table; a key's page has more."""


class Keys(Pane):
    """The table of keys."""

    FREE = ("mint", "all", "sort", "search")
    COLUMNS = (
        Column("name", 15, 24),
        Column("credit", 15, 18),
        Column("today", 9),
        Column("state", 12),
        Column("limits", 17, 29),
        Column("key", 14, since=120),
        Column("models", 14, 20, since=140),
        Column("last used", 10, since=160),
        Column("created", 10, since=172),
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "mint", "Mint", tooltip="Make a key"),
        Binding("t", "top_up", "Top up", tooltip="Add credit"),
        Binding("e", "limit", "Limits", tooltip="Change what it may spend and call"),
        Binding("x", "expire", "Expiry", show=False, tooltip="Change when it ends"),
        Binding("o", "rotate", "Rotate", tooltip="A new secret; the old one works for a while"),
        Binding("r", "revoke", "Revoke", tooltip="Refuse it from now on"),
        Binding("d", "forget", "Forget", show=False, tooltip="Remove its name for good"),
        Binding("enter", "page", "Page", show=False, tooltip="What this key did"),
        Binding("a", "all", "Revoked too", show=False, tooltip="Or live ones alone"),
        Binding("b", "sort", "Sort by", show=False, tooltip=f"{', '.join(SORTS)}"),
    ]

    def __init__(self, client: Connection, model: str) -> None:
        super().__init__()
        self._client, self._model = client, model
        self._keys: dict[str, KeyView] = {}
        self._spent: dict[str, Decimal] = {}
        self._stats: Stats | None = None
        self._with_ended = False
        self._order = next(iter(SORTS))

    def compose(self) -> ComposeResult:
        """Lay out the table."""
        yield Input(placeholder="words of a name, an id or a model", classes="search", compact=True)
        yield DataTable(id="keys", cursor_type="row", zebra_stripes=True)
        yield Label("", id="keys-hint", classes="hint")

    def show(self, keys: list[KeyView], stats: Stats) -> None:
        """Draw keys; the cursor stays on its key."""
        self._stats = stats
        self._keys = {key.id: key for key in keys}
        self.draw()

    def draw(self) -> None:
        """Draw the keys that are wanted, in the order that is wanted."""
        text, keys = self.searched, list(self._keys.values())
        shown = keys_shown(keys, text=text, order=self._order, with_ended=self._with_ended)
        self.fill({key.id: _row(key, self._spent_by(key), self._stats) for key in shown})
        self.offer()
        ended = 0 if self._with_ended else sum(key.revoked is not None for key in keys)
        said = [
            f"{len(shown)} key{'s' * (len(shown) != 1)}" if keys else "No keys: m mints the first",
            *([f"with {plain(text, width=20)} (esc shows all)"] if text else ["/ filters"]),
            f"by {self._order} (b)",
            *([f"{ended} revoked (a)"] if ended else []),
            *([] if text else ["x expiry", "d forget"]),
        ]
        self.query_one("#keys-hint", Label).update(Text("   ".join(said)))

    def count(self, report: UsageReport) -> None:
        """Take what each key ever spent: balances are drawn against what was granted."""
        self._spent = {row.group: row.credits for row in report.data}
        self.draw()

    def _spent_by(self, key: KeyView) -> Decimal:
        return self._spent.get(key.id, Decimal(0))

    def action_all(self) -> None:
        """Show or hide revoked keys."""
        self._with_ended = not self._with_ended
        self.draw()

    def action_sort(self) -> None:
        """Sort keys by what comes next in `SORTS`."""
        orders = list(SORTS)
        self._order = orders[(orders.index(self._order) + 1) % len(orders)]
        self.draw()

    def name_of_row(self) -> str:
        """Return the name of the key under the cursor."""
        key = self._chosen()
        return key.name if key else ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done with the row under the cursor."""
        del parameters
        if not self.is_mounted or action in self.FREE:
            return True
        if action == "show_all":
            return self.query_one(".search", Input).has_class("shown")
        return self._chosen() is not None and self.can(action, self.under_cursor())

    def can(self, action: str, row: str) -> bool:
        """Say whether an action can be done with a key now."""
        key = self._keys.get(row)
        if key is None:
            return True
        is_live = key.revoked is None
        is_over = bool(key.expires and self._stats and key.expires <= self._stats.now)
        return {
            "forget": key.forgotten is None,
            "top_up": is_live and key.credit is not None,
            "rotate": is_live and not is_over,
            **dict.fromkeys(OF_LIVE_KEYS, is_live),
        }.get(action, True)

    def on_data_table_row_highlighted(self) -> None:
        """Offer what can be done with the key under the cursor."""
        self.offer()

    def _chosen(self) -> KeyView | None:
        return self._keys.get(self.under_cursor())

    @work(group="verb")
    async def action_mint(self) -> None:
        """Make a key and show it once."""
        await self._show_secret(await self.app.push_screen_wait(key_forms.minting(self._client)))

    @work(group="verb")
    async def action_rotate(self) -> None:
        """Give a key a new secret and show it once."""
        key = self._chosen()
        if key is not None:
            form = key_forms.rotating(self._client, key)
            await self._show_secret(await self.app.push_screen_wait(form))

    async def _show_secret(self, made: Plaintext | None) -> None:
        if made is not None:
            url = self._client.url
            await self.app.push_screen_wait(Secret(made.name, made.key, url, self._model))

    def action_top_up(self) -> None:
        """Add credit."""
        self._ask(key_forms.topping_up)

    def action_limit(self) -> None:
        """Change the limits of a key."""
        self._ask(key_forms.limiting)

    def action_expire(self) -> None:
        """Change when a key ends."""
        self._ask(key_forms.expiring)

    @work(group="verb")
    async def _ask(self, form: Callable[[Connection, KeyView], Form[str]]) -> None:
        """Show a form about the key under the cursor, and what it answers."""
        key = self._chosen()
        if key is not None:
            said = await self.app.push_screen_wait(form(self._client, key))
            if said is not None:
                self.notify(said)

    @work(group="verb")
    async def action_forget(self) -> None:
        """Revoke a key and remove what says whose it is."""
        key = self._chosen()
        if key is None:
            return
        asked = Confirm(
            f"Forget {plain(key.name)}? It is refused from now on, and its name and secrets "
            "are removed for good. What it spent stays in the books. This cannot be undone.",
            yes="Forget",
        )
        if await self.app.push_screen_wait(asked):
            self.order("The key is forgotten", lambda: self._client.do(verbs.FORGET, key.id))

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


def _row(key: KeyView, spent: Decimal, stats: Stats | None) -> tuple[Text, ...]:
    if key.credit is None:
        balance = Text("unlimited")
    else:
        left = figures.bar(share_left(key, spent), BAR)
        balance = Text(f"{left} {figures.money(key.credit, decimals=SHORT)}")
    state = state_of(key, spent, stats)
    look = {"revoked": "dim strike", "forgotten": "dim strike", "live": ""}.get(state, "bold")
    models = f"{len(key.models)} chosen" if key.models else "all"
    return (
        inert(key.name),
        balance,
        Text(figures.money(key.spent_today, decimals=SHORT), justify="right"),
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
            ("credit", figures.money(key.credit)),
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
