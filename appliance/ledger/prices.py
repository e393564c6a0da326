"""Prices: every price that was ever charged, as numbered versions.

Owns the table `prices` and the current version of each model. A hold records its version, so that
a changed price applies to new calls only.
"""

import sqlite3

from appliance.core.clock import Clock
from appliance.core.units import Picocredits
from appliance.pricing.tariff import Tariff
from appliance.store.writer import Writer

Listed = tuple[str, int, int]
"""Unit, and picocredits for one of it in each tier: realtime, batch."""


class Prices:
    """The current version of each model's price."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._current: dict[str, tuple[Tariff, int]] = {}

    async def version(self, model: str, tariff: Tariff) -> int:
        """Return the version with this tariff; a new one if the model's last one differs."""
        known = self._current.get(model)
        if known is not None and known[0] == tariff:
            return known[1]
        now_us = self._clock.wall_us()
        # The hold that refers to it is written later, by the same writer: no flush is needed.
        version = await self._writer.run(
            lambda connection: publish(connection, model, tariff, now_us), durable=False
        )
        self._current[model] = tariff, version
        return version


def publish(connection: sqlite3.Connection, model: str, tariff: Tariff, now_us: int) -> int:
    """Return the version of a model's tariff; it is written if the last one differs."""
    listed = _listed(tariff)
    last = connection.execute(
        "SELECT version, unit, realtime, batch FROM prices WHERE model = ?"
        " ORDER BY version DESC LIMIT 1",
        (model,),
    ).fetchone()
    if last is not None and last[1:] == listed:
        return int(last[0])
    cursor = connection.execute(
        "INSERT INTO prices (model, unit, realtime, batch, since_us) VALUES (?, ?, ?, ?, ?)",
        (model, *listed, now_us),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _listed(tariff: Tariff) -> tuple[str, Picocredits, Picocredits]:
    unit = "token" if tariff.task == "embeddings" else "document"
    return unit, tariff.each("realtime"), tariff.each("batch")
