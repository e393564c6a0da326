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
    units: int
    """Tokens or documents that were charged."""
    cost: str
    """Credits."""
    ms: float
    request_id: str


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds of one stage over the last minute."""

    p50: float
    p95: float


class Activity(msgspec.Struct, frozen=True):
    """What one model or one key did in the last minute."""

    name: str
    calls: int
    tokens: int
    documents: int
    errors: int


class Point(msgspec.Struct, frozen=True):
    """One step of a history."""

    calls: float
    """A second."""
    tokens: float
    documents: float
    errors: float


class Stats(msgspec.Struct, frozen=True):
    """Everything at one moment."""

    now: str
    uptime_s: int
    version: str
    calls_per_s: float
    """Over the last five seconds, as the next three."""
    tokens_per_s: float
    documents_per_s: float
    errors_per_s: float
    stages: dict[str, Quantiles]
    models: list[Activity]
    keys: list[Activity]
    recent: list[CallView]
    """The newest first."""
    history: list[Point]
    """Oldest first."""
    step_s: int
    """Of the history."""
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
