"""Audit log: every action of an operator, a JSON line for each, for their owner alone.

Owns `logs/audit.log`, its size, and what of an order may be written: no secret, and no name of a
person, which `keys forget` could not remove from here.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from appliance.core.clock import Clock, iso
from appliance.core.redaction import redacted
from appliance.core.text import visible
from appliance.store import bounded_file
from appliance.wire.audit import AuditLine

log = logging.getLogger("gigarouter.audit")

BYTES_MAX = 4_000_000
KEPT = 7
TEXT_CHARS_MAX = 200
LIST_MAX = 50
PRIVATE = {
    "MintOrder": {"name", "idempotency_key"},
    "TopUpOrder": {"idempotency_key"},
    "AddModelOrder": {"note"},
}
"""Fields of orders that are left out."""


class AuditLog:
    """Writes and reads the audit log of one data directory; any thread may."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Name the file."""
        return f"<AuditLog {self._path}>"

    def note(
        self,
        *,
        who: str,
        what: str,
        outcome: str,
        origin: str = "",
        target: tuple[str, ...] = (),
        order: dict[str, Any] | None = None,
        request_id: str = "",
    ) -> None:
        """Append a line. That it cannot be written is said in the log, and stops nobody."""
        line = AuditLine(
            at=iso(self._clock.wall_us()) or "",
            who=_short(who),
            what=what,
            outcome=_short(outcome),
            origin=_short(origin),
            target=tuple(_short(each) for each in target),
            order={} if order is None else {key: _bounded(each) for key, each in order.items()},
            request_id=_short(request_id),
        )
        try:
            with self._lock:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                content = msgspec.json.encode(line) + b"\n"
                bounded_file.append(self._path, content, bytes_max=BYTES_MAX, kept=KEPT)
        except OSError as error:
            log.error("%s cannot be written: %s", self._path, error)  # noqa: TRY400 - it says enough

    def lines(self) -> Iterator[AuditLine]:
        """Yield every line that is kept, oldest first; what is no line of ours is left out.

        Raises:
            OSError: a file cannot be read.
        """
        for path in bounded_file.files(self._path, kept=KEPT):
            with path.open("rb") as stream:
                for content in stream:
                    with suppress(msgspec.MsgspecError):
                        yield msgspec.json.decode(content, type=AuditLine)


def this_user(program: str) -> str:
    """Return who acts on the data directory itself, by program and user."""
    return f"{program} (user {os.getuid()})"


def facts_of(order: msgspec.Struct | None) -> dict[str, Any]:
    """Return what of an order may be written: fields that were given, without private ones."""
    if order is None:
        return {}
    private = PRIVATE.get(type(order).__name__, set())
    given: dict[str, Any] = msgspec.to_builtins(order)
    return {key: each for key, each in given.items() if each is not None and key not in private}


def _bounded(found: Any) -> Any:
    if isinstance(found, str):
        return _short(found)
    if isinstance(found, list | tuple):
        return [_bounded(each) for each in found[:LIST_MAX]]
    return found if isinstance(found, bool | int | float) else _short(str(found))


def _short(text: str) -> str:
    return visible(redacted(text), chars_max=TEXT_CHARS_MAX)
