"""DeliveryAcks: which charges' answers were delivered.

Owns the acknowledgements without which a charge is refunded when the process ends. They are written
some milliseconds later, many at once, so that no call waits for them. If one is lost in a crash,
its charge is refunded although the answer was delivered, in the customer's favour.
"""

import asyncio
import json
import logging
import sqlite3

from appliance.core.errors import ApplianceError
from appliance.store.writer import Writer

log = logging.getLogger("gigarouter.delivery_acks")

PAUSE_S = 0.01
"""How long acknowledgements are collected before they are written."""
RETRY_S = 5.0
"""The same, after a write that failed."""


class DeliveryAcks:
    """Marks charges as delivered; for the event loop's thread only."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._marks: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._failing = False

    def __repr__(self) -> str:
        """Show how many are not written yet."""
        return f"<DeliveryAcks [{len(self._marks)} waiting]>"

    def add(self, seq: int) -> None:
        """Record that a charge's answer was delivered."""
        self._marks.append(seq)
        if self._timer is None and self._writing is None:
            self._wait(PAUSE_S)

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await self._writing
        if self._marks:
            await self._write()

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self._write())
        self._writing.add_done_callback(self._ended)

    def _ended(self, _: "asyncio.Task[None]") -> None:
        self._writing = None
        if self._marks and self._timer is None:
            self._wait(RETRY_S if self._failing else PAUSE_S)

    async def _write(self) -> None:
        marks, self._marks = self._marks, []
        try:
            await self._writer.run(lambda connection: mark(connection, marks), durable=False)
        except ApplianceError as error:
            self._keep(marks)
            log.warning("deliveries are not written yet: %s", error)
        except Exception:
            self._keep(marks)
            log.exception("deliveries are not written yet")
        else:
            self._failing = False

    def _keep(self, marks: list[int]) -> None:
        self._failing = True
        self._marks = marks + self._marks


def mark(connection: sqlite3.Connection, seqs: list[int]) -> None:
    """Write that charges' answers were delivered."""
    connection.execute(
        "DELETE FROM undelivered WHERE seq IN (SELECT value FROM json_each(?))",
        (json.dumps(seqs),),
    )
