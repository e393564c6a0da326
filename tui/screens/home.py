"""Home: what the server does now.

Owns the figures, the history and the last calls. Deliberately asks the server nothing: the console
hands it what it has.
"""

from typing import ClassVar

import msgspec
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import DataTable, Label, Sparkline, Static

from appliance.wire.stats import Activity, Stats
from tui import figures
from tui.inert import inert, plain

SPANS = {60: "1 min", 900: "15 min", 86_400: "24 h"}
NARROW = (
    ("time", 9), ("status", 16), ("key", 10), ("model", 18), ("units", 6), ("cost", 8), ("took", 8),
)  # fmt: skip
WIDE = (
    ("time", 10), ("status", 26), ("key", 24), ("model", 36), ("units", 10), ("cost", 12),
    ("took", 12),
)  # fmt: skip
WIDE_FROM = 140
"""Columns of the terminal."""
CALLS_SHOWN = 16


class Figure(Vertical):
    """One large number and what it is."""

    def __init__(self, label: str, name: str) -> None:
        super().__init__(classes="figure")
        self._shown = ("", "")
        self._label, self._value = label, Static("0", classes="value", id=f"value-{name}")
        self._more = Static("", classes="label", id=f"more-{name}")

    def compose(self) -> ComposeResult:
        """Lay out the number over its name."""
        yield Label(self._label, classes="label")
        yield self._value
        yield self._more

    def show(self, value: str, more: str = "") -> None:
        """Draw another number, if it is another one."""
        if (value, more) == self._shown:
            return
        self._shown = value, more
        self._value.update(value)
        self._more.update(more)


class Home(Widget):
    """Throughput, as it is now and as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h", "span", "History", tooltip="One minute, a quarter of an hour, a day")
    ]

    class SpanChanged(Message):
        """Another history is wanted."""

        def __init__(self, span_s: int) -> None:
            super().__init__()
            self.span_s = span_s

    def compose(self) -> ComposeResult:
        """Lay out figures, history, stages and calls."""
        with Horizontal(id="figures"):
            for label, name in (
                ("tokens/s", "tokens"), ("documents/s", "documents"), ("calls/s", "calls"),
                ("waiting", "waiting"), ("memory", "memory"), ("charged", "charged"),
            ):  # fmt: skip
                yield Figure(label, name)
        yield Label("", id="chart-label")
        with Vertical(id="chart"):
            yield Sparkline([], summary_function=max)
        with Horizontal(id="middle"):
            yield Static(id="stages")
            yield Static(id="by-model")
            yield Static(id="by-key")
        yield DataTable(id="recent", cursor_type="row", zebra_stripes=True, cell_padding=0)

    def on_mount(self) -> None:
        """Name the columns."""
        self._span_s = 60
        self._stats: Stats | None = None
        table = self.query_one("#recent", DataTable)
        for title, width in WIDE if self.app.size.width >= WIDE_FROM else NARROW:
            table.add_column(title, width=width, key=title)

    def action_span(self) -> None:
        """Go to the next history."""
        spans = list(SPANS)
        self._span_s = spans[(spans.index(self._span_s) + 1) % len(spans)]
        self.post_message(self.SpanChanged(self._span_s))

    def show(self, stats: Stats) -> None:
        """Draw what the server does now."""
        figure = {f.query_one(".value").id: f for f in self.query(Figure)}
        figure["value-tokens"].show(
            figures.number(stats.tokens_per_s), f"bins {stats.bin_fill:.0%}"
        )
        figure["value-documents"].show(figures.number(stats.documents_per_s))
        errors = (
            f"{figures.number(stats.errors_per_s)} refused" if stats.errors_per_s else "0 refused"
        )
        figure["value-calls"].show(figures.number(stats.calls_per_s), errors)
        figure["value-waiting"].show(
            f"{figures.number(stats.waiting_tokens)} tok",
            f"lanes {stats.lanes_busy}/{stats.lanes}",
        )
        limit = figures.size(stats.memory_max) if stats.memory_max else "no limit"
        figure["value-memory"].show(figures.size(stats.memory_taken), f"/ {limit}")
        figure["value-charged"].show(
            figures.money(stats.charged), f"in {figures.duration(stats.uptime_s)}"
        )
        self._show_history(stats)
        before, self._stats = self._stats, stats
        if before is None or before.stages != stats.stages:
            self.query_one("#stages", Static).update(_stages(stats))
        if before is None or (before.models, before.keys) != (stats.models, stats.keys):
            self.query_one("#by-model", Static).update(
                _activity("model (1 min)", _shortened(stats.models))
            )
            self.query_one("#by-key", Static).update(_activity("key (1 min)", stats.keys))
        if before is None or before.recent != stats.recent:
            self._show_recent(stats)

    def _show_history(self, stats: Stats) -> None:
        tokens = [point.tokens for point in stats.history]
        documents = [point.documents for point in stats.history]
        shown, name = (tokens, "tokens/s") if max(tokens, default=0) else (documents, "documents/s")
        line = self.query_one(Sparkline)
        if line.data != shown:
            line.data = shown
        span = SPANS.get(self._span_s, "")
        highest = figures.number(max(shown, default=0))
        self.query_one("#chart-label", Label).update(
            f"{name} over {span}: highest {highest}   (h: other spans)"
        )

    def _show_recent(self, stats: Stats) -> None:
        table = self.query_one("#recent", DataTable)
        place = table.cursor_row
        table.clear()
        for call in stats.recent[:CALLS_SHOWN]:
            good = call.status < 400  # noqa: PLR2004 - every refusal
            table.add_row(
                call.at[11:19],
                Text(f"{call.status} {plain(call.code) or 'ok'}", style="" if good else "bold red"),
                inert(call.key, width=23),
                inert(_short(call.model), width=35),
                figures.number(call.units),
                figures.money(call.cost),
                figures.ms(call.ms),
            )
        table.move_cursor(row=min(place, max(0, table.row_count - 1)))


def _short(name: str) -> str:
    """Return a model's name without its owner."""
    return name.rpartition("/")[2]


def _shortened(rows: list[Activity]) -> list[Activity]:
    return [msgspec.structs.replace(row, name=_short(row.name)) for row in rows]


def _stages(stats: Stats) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for title in ("stage", "p50", "p95"):
        table.add_column(title, justify="left" if title == "stage" else "right", no_wrap=True)
    order = ("tokenize", "queue", "inference", "settle", "total")
    for stage in order:
        found = stats.stages.get(stage)
        table.add_row(
            stage, figures.ms(found.p50) if found else "-", figures.ms(found.p95) if found else "-"
        )
    return table


def _activity(title: str, rows: list[Activity]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for column in (title, "calls", "units"):
        table.add_column(column, justify="right" if column != title else "left", no_wrap=True)
    for row in rows[:5]:
        table.add_row(
            inert(row.name, width=16), figures.number(row.calls),
            figures.number(row.tokens + row.documents),
        )  # fmt: skip
    if not rows:
        table.add_row(Text("nobody calls", style="dim"), "", "")
    return table
