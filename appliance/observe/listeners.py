"""Listeners: who is told of each call that ended, as the settings say."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.core.clock import Clock
from appliance.observe import access_log
from appliance.observe.meters import CallRecord
from appliance.observe.traces import Traces, open_traces

Note = Callable[[CallRecord], None]
CLOSE_S = 5.0
"""How long a stopping server waits for spans to be sent."""


@dataclass(frozen=True, slots=True)
class Sending:
    """The chore that sends what traces still hold when the server stops."""

    traces: Traces

    async def run(self) -> None:
        """Wait to be cancelled; then let the spans go, or be lost if the collector is slow."""
        try:
            await asyncio.Event().wait()
        finally:
            # A thread that the process does not wait for: the library tries for half a minute.
            closing = threading.Thread(target=self.traces.close, name="traces", daemon=True)
            closing.start()
            await asyncio.to_thread(closing.join, CLOSE_S)


def listeners(
    first: Note, *, has_access_log: bool, otlp_endpoint: str, clock: Clock
) -> tuple[Sequence[Note], Sequence[Sending]]:
    """Return who is told, in order, and the chores that they need.

    Raises:
        InvalidSettings: there is to be a trace, and OpenTelemetry is not installed.
    """
    told = [first, *([access_log.note] if has_access_log else [])]
    if not otlp_endpoint:
        return told, ()
    traces = open_traces(otlp_endpoint, clock)
    return [*told, traces.note], (Sending(traces),)
