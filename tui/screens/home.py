"""Home: the first tab: what the server does now.

Owns the arrangement of the panels. It sends no requests: the console passes it each answer.
"""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widget import Widget

from appliance.wire.stats import Stats
from tui import figures
from tui.chart import chart
from tui.screens import panels
from tui.screens.meanings import Meanings
from tui.widgets.lines import Lines

SPANS = {60: "1 min", 900: "15 min", 3600: "1 h", 86_400: "24 h", 2_592_000: "30 d"}
HOUR_S = 3600
METRICS = ("tokens", "documents", "calls", "errors", "free")
NAMES = {"errors": "refused"}
CHARTS = 3
"""Charts on the widest terminal; the style sheet hides some on others."""


class Home(Widget):
    """Throughput now and over time."""

    can_focus = True
    HELP = "**i** says what each figure counts."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h", "span", "History", tooltip="From one minute to thirty days"),
        Binding("g", "metric", "Graph", tooltip="Tokens, documents, calls, refused, free"),
        Binding("i", "meanings", "Figures", tooltip="What each figure counts"),
        Binding("f", "filter", "Refused only", tooltip="Of the last calls, those that failed"),
    ]

    class SpanChanged(Message):
        """The person chose another span of history."""

        def __init__(self, span_s: int) -> None:
            super().__init__()
            self.span_s = span_s

    def __init__(self) -> None:
        super().__init__()
        self._span_s = 60
        self._metric: int | None = None
        """Index into `METRICS`; None: documents if only these were served, else tokens."""
        self._only_refused = False
        self._stats: Stats | None = None

    def compose(self) -> ComposeResult:
        """Lay out figures, charts, panels and the last calls."""
        yield Lines(id="figures")
        with Horizontal(id="charts"):
            for number in range(CHARTS):
                yield Lines(id=f"chart-{number}", classes="panel chart")
        with Horizontal(id="middle"):
            for name in ("stages", "by-model", "by-key", "machine", "refusals"):
                yield Lines(id=name, classes="panel")
        yield Lines(id="recent", classes="panel")

    def on_mount(self) -> None:
        """Title the panels, and take the focus, because this tab opens first."""
        self.focus()
        for name, title in (
            ("stages", "latency, 1 min"),
            ("by-model", "models, 1 min"),
            ("by-key", "keys, 1 min"),
            ("machine", "machine"),
            ("refusals", "refused, 1 min"),
        ):
            self._panel(name).border_title = title

    def on_resize(self) -> None:
        """Draw again for the new size, after the panels have their own."""
        self.call_after_refresh(self._draw)

    def action_span(self) -> None:
        """Switch to the next span of history."""
        spans = list(SPANS)
        self._span_s = spans[(spans.index(self._span_s) + 1) % len(spans)]
        self.post_message(self.SpanChanged(self._span_s))

    def action_metric(self) -> None:
        """Switch to the next graph."""
        self._metric = (self._first_metric() + 1) % len(METRICS)
        self._draw()

    def action_filter(self) -> None:
        """Show refused calls only, or all calls."""
        self._only_refused = not self._only_refused
        self._draw()

    def action_meanings(self) -> None:
        """Say what each figure counts."""
        self.app.push_screen(Meanings())

    def show(self, stats: Stats) -> None:
        """Draw what the server does now."""
        self._stats = stats
        self._draw()

    def _draw(self) -> None:
        stats = self._stats
        if stats is None or not self.is_mounted:
            return
        figures_ = self._panel("figures")
        figures_.draw(panels.figures_of(stats, figures_.content_size.width))
        self._draw_charts(stats)
        for name, drawn in (
            ("stages", panels.stages),
            ("by-model", panels.models),
            ("by-key", panels.keys),
            ("machine", panels.machine),
            ("refusals", panels.refusals),
        ):
            panel = self._panel(name)
            if panel.display and panel.content_size:
                panel.draw(drawn(stats, panel.content_size.width))
        recent = self._panel("recent")
        calls = [c for c in stats.recent if not self._only_refused or panels.is_refusal(c)]
        recent.border_title = "last calls: refused only" if self._only_refused else "last calls"
        recent.draw(panels.calls(calls, *recent.content_size, _nothing(stats)))

    def _draw_charts(self, stats: Stats) -> None:
        for number in range(CHARTS):
            panel = self._panel(f"chart-{number}")
            if not panel.content_size:
                continue
            metric = METRICS[(self._first_metric() + number) % len(METRICS)]
            values = [getattr(point, metric) for point in stats.history]
            name = NAMES.get(metric, metric)
            highest = figures.number(getattr(stats.highest, metric))
            what = "highest minute" if self._span_s >= HOUR_S else "highest"
            panel.border_title = f"{name}/s, {SPANS[self._span_s]}, {what} {highest}"
            panel.draw(chart(values, *panel.content_size, SPANS[self._span_s]))

    def _first_metric(self) -> int:
        if self._metric is not None:
            return self._metric
        history = self._stats.history if self._stats else []
        only_documents = any(p.documents for p in history) and not any(p.tokens for p in history)
        return METRICS.index("documents" if only_documents else "tokens")

    def _panel(self, name: str) -> Lines:
        return self.query_one(f"#{name}", Lines)


def _nothing(stats: Stats) -> str:
    """Return why no calls are listed."""
    if stats.recent:
        return "none was refused"
    if not stats.has_keys:
        return "none yet: a key and a call away (Keys, m)"
    return f"none since the server started, {figures.duration(stats.uptime_s)} ago"
