"""Access log: a line for each call that ended, with everything about it but its content.

Owns the names of its fields. Keys are named by their public id.
"""

import logging
from typing import Any

from appliance.core.units import credits_text
from appliance.observe.meters import CallRecord

NAME = "gigarouter.access"
log = logging.getLogger(NAME)


def note(ended: CallRecord) -> None:
    """Write one line: its fields with `log_format = "json"`, the most telling of them as text."""
    found = fields(ended)
    log.info(
        "%s %s %s %s tokens=%s documents=%s cost=%s ms=%s key=%s %s",
        ended.status,
        ended.code or "-",
        ended.model or "-",
        ended.tier or "-",
        ended.tokens,
        ended.documents,
        found["cost"],
        found["ms"],
        ended.key_id or "-",
        ended.request_id,
        extra={"fields": found},
    )


def fields(ended: CallRecord) -> dict[str, Any]:
    """Return what is known of a call, by name."""
    return {
        "request_id": ended.request_id,
        "status": ended.status,
        "code": ended.code,
        "key": ended.key_id,
        "model": ended.model,
        "tier": ended.tier,
        "tokens": ended.tokens,
        "documents": ended.documents,
        "cost": credits_text(ended.amount),
        "ms": round(ended.total_ms, 3),
        "stages": {stage: round(ms, 3) for stage, ms in ended.stages.items()},
    }
