"""Stats: what the server does now, as the console draws it."""

import msgspec

from appliance.wire.engines import DeviceView


class CallView(msgspec.Struct, frozen=True):
    """One call that ended."""

    at: str
    status: int
    code: str
    """Of a refusal; empty for an answer."""
    key: str
    """Name of the key, or empty where none was accepted."""
    model: str
    tier: str
    tokens: int
    """`usage.total_tokens` of its answer; 0 where nothing was charged."""
    cost: str
    """Credits."""
    ms: float
    request_id: str
    documents: int = 0
    """That rerank was charged for."""


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds of one stage over the last minute."""

    p50: float
    p95: float


class Activity(msgspec.Struct, frozen=True):
    """What one model or one key did in the last minute; `core/tally.py` says what is counted."""

    name: str
    calls: int
    tokens: int
    documents: int
    errors: int
    """Refused."""
    free: int = 0


class Point(msgspec.Struct, frozen=True):
    """One step of a history."""

    calls: float
    """A second."""
    tokens: float
    documents: float
    errors: float
    """Refused."""
    free: float = 0.0


class ModelHistory(msgspec.Struct, frozen=True):
    """What one model did in each step of a span that outlives a restart."""

    model: str
    span_s: int
    step_s: int
    highest: Point
    """Each figure's highest rate over one minute."""
    data: list[Point]
    """Oldest first; the last step still runs, and its rate is over its seconds so far."""


class Stats(msgspec.Struct, frozen=True):
    """Everything at one moment."""

    now: str
    uptime_s: int
    version: str
    calls_per_s: float
    """Over the last five seconds, as the next four."""
    tokens_per_s: float
    documents_per_s: float
    errors_per_s: float
    """Refused."""
    free_per_s: float
    stages: dict[str, Quantiles]
    models: list[Activity]
    keys: list[Activity]
    recent: list[CallView]
    """The newest first."""
    history: list[Point]
    """Oldest first. Spans from an hour on outlive a restart, and their last step still runs: its
    rate is over its seconds so far."""
    step_s: int
    """Of the history."""
    highest: Point
    """Each figure's highest rate in the history: over one step, from an hour on over one minute."""
    has_keys: bool
    """Whether there is a key that may call."""
    charged: str
    """Credits since the server started."""
    spent_today: str
    """Credits that were charged on this UTC day, over restarts."""
    refusals: dict[str, int]
    """In the last minute, by status and code, the most frequent first."""
    in_flight: int
    waiting_tokens: int
    batch_fill: float
    """Of the room in the batches of the last seconds, the share that was used: 0 to 1."""
    workers_busy: int
    workers: int
    memory_taken: int
    """By models, estimated."""
    memory_max: int | None
    devices: list[DeviceView]
    process_bytes: int
    """Resident, of the whole server."""
    ended_before: str = ""
    """How the server ended in whose place this one was started by itself; empty: none did."""
