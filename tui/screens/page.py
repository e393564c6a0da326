"""Page: a dialog about one key or one model: its facts, its usage, its last calls.

A `Subject` says which one, and what to ask the server for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label, Static

from appliance.client import verbs
from appliance.core.errors import ServerUnreachable
from appliance.wire.keys import KeyView
from appliance.wire.stats import CallView, ModelHistory
from appliance.wire.usage import UsageReport
from tui import figures
from tui.chart import chart
from tui.connection import Connection
from tui.inert import inert, plain
from tui.screens.allowance import allowances

CALLS_SHOWN = 8
DAY_S = "86400"
CHART_WIDTH, CHART_HEIGHT = 60, 5
FACT_CHARS_MAX = 2000
ALL = "all"


@dataclass(frozen=True, slots=True)
class Subject:
    """The key or the model that a page is about."""

    name: str
    facts: Sequence[tuple[str, str]]
    other: str
    """The second grouping of its usage: `model` or `key`."""
    is_its: Callable[[CallView], bool]
    key: str = ALL
    """The id of the key, or all keys."""
    model: str = ALL
    limited: KeyView | None = None
    """The key whose limits are shown with what is used of them."""


class Page(ModalScreen[None]):
    """Facts, usage by day and by the other grouping, and the last calls."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "leave", "Close")]

    def __init__(self, client: Connection, subject: Subject) -> None:
        super().__init__()
        self._client, self._subject = client, subject

    def compose(self) -> ComposeResult:
        """Lay out facts above usage."""
        with VerticalScroll(classes="dialog"):
            yield Label(inert(self._subject.name), classes="heading")
            yield Static(id="facts")
            if self._subject.limited is not None:
                yield Static(id="limits")
            if self._subject.model != ALL:
                yield Static(id="history")
            yield Static("reading\u2026", id="by-day")
            yield Static(id="by-other")
            yield Static(id="of-calls")

    def on_mount(self) -> None:
        """Draw the facts, and ask for the usage."""
        facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in self._subject.facts:
            facts.add_row(
                Text(name, style="dim"), Text(plain(value, width=FACT_CHARS_MAX), overflow="fold")
            )
        self.query_one("#facts", Static).update(facts)
        self._read()

    @work(exclusive=True)
    async def _read(self) -> None:
        its = self._subject
        try:
            days = await self._client.do(verbs.USAGE, "day", "14d", its.key, its.model)
            others = await self._client.do(verbs.USAGE, its.other, ALL, its.key, its.model)
            stats = await self._client.do(verbs.STATS, "60")
            if its.model != ALL:
                self._draw_history(await self._client.do(verbs.HISTORY, DAY_S, its.model))
        except ServerUnreachable as error:
            self._fail(str(error))
            return
        try:
            by_day, by_other = _bars(days, "the last 14 days"), _bars(others, f"by {its.other}")
            calls = _calls([call for call in stats.recent if its.is_its(call)][:CALLS_SHOWN])
        except (ArithmeticError, LookupError, ValueError) as error:  # as in the console's polls
            self._fail(f"the server's answer cannot be shown: {error!r}")
            return
        if its.limited is not None:
            activity = next((a for a in stats.keys if a.name == its.limited.name), None)
            self.query_one("#limits", Static).update(
                _limits(allowances(its.limited, others.total.credits, activity))
            )
        self.query_one("#by-day", Static).update(by_day)
        self.query_one("#by-other", Static).update(by_other)
        self.query_one("#of-calls", Static).update(calls)

    def _draw_history(self, found: ModelHistory) -> None:
        """Draw the model's day."""
        values = [point.tokens for point in found.data]
        highest = figures.number(found.highest.tokens)
        text = Text(f"\ntokens/s, 24 h, highest minute {highest}", style="italic")
        for line in chart(values, CHART_WIDTH, CHART_HEIGHT, "24 h"):
            text.append("\n")
            for piece, look in line:
                text.append(piece, "not italic dim" if look == "dim" else "not italic")
        self.query_one("#history", Static).update(text)

    def _fail(self, reason: str) -> None:
        self.query_one("#by-day", Static).update(Text(plain(reason), style="bold red"))

    def action_leave(self) -> None:
        """Close the page."""
        self.dismiss(None)


def _limits(found: Iterable[tuple[str, Text]]) -> Table:
    table = Table(
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
        title="\nlimits, and what is used",
        title_justify="left",
    )
    for name, text in found:
        table.add_row(Text(name, style="dim"), text)
    return table


def _bars(report: UsageReport, title: str) -> Table:
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title=f"\n{title}",
        title_justify="left",
        header_style="dim",
    )
    for column in (report.by, "", "spent", "calls", "tokens", "docs"):
        is_number = column not in (report.by, "")
        table.add_column(column, no_wrap=True, justify="right" if is_number else "left")
    highest = max((row.credits for row in report.data), default=Decimal(0))
    for row in report.data:
        share = float(row.credits / highest) if highest else 0.0
        table.add_row(
            inert(row.name or row.group, width=30),
            figures.bar(share, 14),
            figures.money(row.credits),
            figures.number(row.calls),
            figures.number(row.tokens),
            figures.number(row.documents) if row.documents else "-",
        )
    if not report.data:
        table.add_row(Text("nothing was sold", style="dim"))
    return table


def _calls(calls: Sequence[CallView]) -> Table | Text:
    if not calls:
        return Text("\nno calls lately", style="dim")
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title="\nlast calls",
        title_justify="left",
        header_style="dim",
    )
    for column in ("time", "status", "key", "model", "cost", "took"):
        table.add_column(column, no_wrap=True)
    for call in calls:
        table.add_row(
            call.at[11:19],
            plain(f"{call.status} {call.code}", width=20),
            inert(call.key, width=12),
            inert(call.model.rpartition("/")[2], width=18),
            figures.money(call.cost),
            figures.ms(call.ms),
        )
    return table
