"""History: what models did in each minute of the last hour and in each hour of thirty days.

Owns the two tables, and how many rows they keep: of each model, and of all together, those of the
newest `MINUTES_KEPT` minutes and `HOURS_KEPT` hours in which anything happened. They are counted
by number, so that a clock that is wrong for a while removes nothing that is recent.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from appliance.core.errors import StoreFailed
from appliance.core.tally import (
    FIGURES,
    HOURS_KEPT,
    MINUTES_KEPT,
    MINUTES_PER_HOUR,
    MODELS_MAX,
    HourRow,
    MinuteRow,
    Past,
    Tally,
)
from appliance.store.reader import reading
from appliance.store.writer import Writer

log = logging.getLogger("gigarouter.history")

ROWS_OF_A_MOMENT = MODELS_MAX + 2
"""Each model's, that of those that share one, and that of all together."""
REMOVED_MAX = 500
"""Rows removed in one operation: calls wait for the writer meanwhile."""

INT64_MAX = 2**63 - 1

HIGHEST = tuple(f"{name}_highest" for name in FIGURES)


def _table(name: str, columns: Sequence[str]) -> str:
    numbers = "".join(f"{column} INTEGER NOT NULL, " for column in columns)
    return (
        f"CREATE TABLE {name} (at INTEGER NOT NULL, model TEXT NOT NULL, {numbers}"
        "PRIMARY KEY (at, model)) STRICT, WITHOUT ROWID"
    )


TABLES = (_table("history_minutes", FIGURES), _table("history_hours", (*FIGURES, *HIGHEST)))


def _addition(name: str, columns: Sequence[str]) -> str:
    added = ", ".join(
        f"{column} = MAX({column}, excluded.{column})"
        if column in HIGHEST
        else f"{column} = {column} + excluded.{column}"
        for column in columns
    )
    return (
        f"INSERT INTO {name} (at, model, {', '.join(columns)})"  # noqa: S608 - constants
        f" VALUES (?, ?{', ?' * len(columns)}) ON CONFLICT DO UPDATE SET {added}"
    )


ADD_MINUTE = _addition("history_minutes", FIGURES)
ADD_HOUR = _addition("history_hours", (*FIGURES, *HIGHEST))
NEWEST = "SELECT DISTINCT at FROM {table} ORDER BY at DESC LIMIT 1 OFFSET {kept}"
"""The newest moment of which no row is kept."""
SURPLUS = "SELECT at, model FROM {table} WHERE at < ? OR at > ? LIMIT ?"
KEPT: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"history_minutes": (MINUTES_KEPT, 1), "history_hours": (HOURS_KEPT, MINUTES_PER_HOUR)}
)
"""Of each table how many moments it keeps, and the minutes of one."""

Place = tuple[int, str]
"""The key of a row: its moment and its model."""


class StoredHistory:
    """The history in one database."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def read(self) -> Past:
        """Return what is kept; if it cannot be read, nothing."""
        try:
            return self._read()
        except StoreFailed as error:
            log.warning("the history of calls begins anew: %s", error)
            return Past()

    def _read(self) -> Past:
        columns, width = ", ".join(FIGURES), len(FIGURES)
        highest = ", ".join(HIGHEST)
        with reading(self._writer.path) as connection:
            minutes = connection.execute(
                f"SELECT at, model, {columns} FROM history_minutes"  # noqa: S608 - constants
                " ORDER BY at DESC, model DESC LIMIT ?",
                (MINUTES_KEPT * ROWS_OF_A_MOMENT,),
            ).fetchall()
            hours = connection.execute(
                f"SELECT at, model, {columns}, {highest} FROM history_hours"  # noqa: S608 - constants
                " ORDER BY at DESC, model DESC LIMIT ?",
                (HOURS_KEPT * ROWS_OF_A_MOMENT,),
            ).fetchall()
        return Past(
            [MinuteRow(at, model, Tally(*values)) for at, model, *values in reversed(minutes)],
            [
                HourRow(at, model, Tally(*values[:width]), Tally(*values[width:]))
                for at, model, *values in reversed(hours)
            ],
        )

    async def add(self, rows: Sequence[MinuteRow]) -> None:
        """Add to the rows of some minutes and of their hours; not flushed to the disk by itself.

        Raises:
            QueueFull, StorageFull, LedgerUnavailable: nothing was added.
        """
        await self._writer.run(lambda c: add(c, rows), durable=False, essential=False)

    async def trim(self, now: int | None) -> int:
        """Remove rows that are too many, some at a time; return how many were removed.

        With `now`, in minutes since the epoch, also those that are too old or lie ahead of it.
        Which they are is read beside the writer, so that calls do not wait for that.

        Raises:
            StoreFailed: it cannot be read.
            QueueFull, StorageFull, LedgerUnavailable: nothing was removed.
        """
        surplus = await asyncio.to_thread(self._surplus, now)
        if surplus:
            await self._writer.run(
                lambda connection: remove(connection, surplus), durable=False, essential=False
            )
        return sum(map(len, surplus.values()))

    def _surplus(self, now: int | None) -> dict[str, list[Place]]:
        with reading(self._writer.path) as connection:
            found = {table: surplus(connection, table, now) for table in KEPT}
        return {table: rows for table, rows in found.items() if rows}


def add(connection: sqlite3.Connection, rows: Sequence[MinuteRow]) -> None:
    """Add to the rows of some minutes and of their hours."""
    minutes = [(row.at, row.model, *row.tally.values()) for row in rows]
    hours = [
        (row.at // MINUTES_PER_HOUR, row.model, *row.tally.values(), *row.tally.values())
        for row in rows
    ]
    connection.executemany(ADD_MINUTE, minutes)
    connection.executemany(ADD_HOUR, hours)


def surplus(connection: sqlite3.Connection, table: str, now: int | None) -> list[Place]:
    """Return up to `REMOVED_MAX` rows of a table that are not kept."""
    kept, minutes = KEPT[table]
    [newest] = connection.execute(NEWEST.format(table=table, kept=kept)).fetchone() or [None]
    first, last = 0 if newest is None else newest + 1, INT64_MAX
    if now is not None:
        first, last = max(first, now // minutes - kept + 1), now // minutes
    return connection.execute(SURPLUS.format(table=table), (first, last, REMOVED_MAX)).fetchall()


def remove(connection: sqlite3.Connection, rows: Mapping[str, Sequence[Place]]) -> None:
    """Remove rows of each table."""
    for table, places in rows.items():
        connection.executemany(
            f"DELETE FROM {table} WHERE at = ? AND model = ?",  # noqa: S608 - a constant
            places,
        )
