"""Metering: what a server counts of its calls, and who is told of each.

Owns the wiring of `observe`: meters and series of one server, its access log and its traces.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from appliance.core.clock import utc_day
from appliance.ledger import usage
from appliance.ledger.books import Books
from appliance.observe.history import History
from appliance.observe.history_keeper import HistoryKeeper
from appliance.observe.listeners import listeners
from appliance.observe.loop_lag import LoopLag
from appliance.observe.meters import Meters
from appliance.observe.metrics import Metrics
from appliance.settings import Settings
from appliance.store.history import StoredHistory


class Chore(Protocol):
    """A background task of the server."""

    async def run(self) -> None:
        """Run until cancelled."""


class Metering(NamedTuple):
    """What is fed as calls end, and the chores that go with it."""

    metrics: Metrics
    meters: Meters
    chores: Sequence[Chore]


def metering(books: Books, settings: Settings) -> Metering:
    """Begin to count.

    Raises:
        InvalidSettings: there are to be traces, and OpenTelemetry is not installed.
    """
    metrics = Metrics()
    told, sending = listeners(
        metrics.note,
        has_access_log=settings.access_log,
        otlp_endpoint=settings.otlp_endpoint,
        clock=books.clock,
    )
    store = StoredHistory(books.writer)
    history = History(books.clock, store.read())
    today = usage.charged(books.writer.path, utc_day(books.clock.wall_us()))
    meters = Meters(books.clock, today, on_call=told, history=history)
    lag = LoopLag(books.clock, metrics.note_lag)
    return Metering(metrics, meters, (*sending, HistoryKeeper(history, store), lag))
