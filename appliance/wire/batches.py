"""Batches: what the routes of batches take and say, in OpenAI's shapes."""

from typing import Any

import msgspec

WINDOW = "24h"


class BatchOrder(msgspec.Struct, frozen=True):
    """`POST /v1/batches` as sent."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class RequestCounts(msgspec.Struct, frozen=True):
    """How far a batch is."""

    total: int
    completed: int
    failed: int


class BatchView(msgspec.Struct, frozen=True):
    """One batch; seconds since 1970 where a name ends with `_at`."""

    id: str
    endpoint: str
    errors: dict[str, Any] | None
    """Why it failed: `{"object": "list", "data": [{"code", "message", "param", "line"}]}`."""
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    object: str = "batch"


class BatchList(msgspec.Struct, frozen=True):
    """`GET /v1/batches`."""

    data: list[BatchView]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"
