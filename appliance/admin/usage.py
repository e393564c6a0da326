"""Usage: the operator's report of what was sold, by day, model or key.

Owns the parameters of the report and its shape.
"""

import asyncio
import csv
import io
from collections.abc import Sequence

from appliance.accounts.key import checked_expiry_s
from appliance.accounts.keyring import Keyring
from appliance.core.clock import MICROSECONDS_PER_DAY, Clock, iso, utc_day
from appliance.core.errors import InvalidRequest
from appliance.core.time_span import UNITS_S
from appliance.core.units import credits_of
from appliance.ledger import calls, usage
from appliance.ledger.calls import ChargedCall
from appliance.ledger.usage import By, Usage
from appliance.store.datadir import DataDir
from appliance.store.reader import reading
from appliance.wire.calls import ChargedPage, ChargedView
from appliance.wire.usage import UsageReport, UsageRow

ALL = "all"
"""Every key, every model, or every day."""
GROUPS: tuple[By, ...] = ("day", "model", "key", "tier")
COLUMNS = ("group", "name", "calls", "tokens", "documents", "credits", "refunds", "refunded")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet reads a cell that begins with one of these as a formula."""


class UsageAdmin:
    """The operator's view of what was sold."""

    def __init__(self, directory: DataDir, keys: Keyring, clock: Clock) -> None:
        self._directory = directory
        self._keyring = keys
        self._clock = clock

    async def report(self, by: str, since: str, key_id: str, model: str) -> UsageReport:
        """Return what was sold since `7d`, `12w` or `all`, to one key or to `all`, of one model.

        A model has the name that it had when it was called, also one that is no longer in the
        catalogue.

        Raises:
            InvalidRequest: a parameter is wrong; `param` names it.
            KeyNotFound: no key has this id.
        """
        group = next((known for known in GROUPS if known == by), None)
        if group is None:
            raise InvalidRequest(f"by is one of {', '.join(GROUPS)}, not {by[:50]!r}", param="by")
        since_day = self._since_day(since)
        account = None if key_id == ALL else self._keyring.get(key_id).id
        rows = await asyncio.to_thread(self._read, group, since_day, account, model)
        return UsageReport(
            by=group,
            since=_day_text(since_day),
            key=account,
            model=None if model == ALL else model,
            data=[self._row(row, group) for row in rows],
            total=_total(rows),
        )

    async def calls(self, key_id: str, before: int, limit: int) -> ChargedPage:
        """Return calls that a key was charged for, the newest first, before a transfer."""
        found = await asyncio.to_thread(self._calls, key_id, before, limit + 1)
        shown = found[:limit]
        after = shown[-1].seq if len(found) > limit else None
        return ChargedPage([_charged(each) for each in shown], after)

    def _calls(self, key_id: str, before: int, limit: int) -> list[ChargedCall]:
        with reading(self._directory.database) as connection:
            return calls.read(connection, key_id, before=before, limit=limit)

    async def days(self, key_id: str) -> list[Usage]:
        """Return all that a key ever used, by day."""
        return await asyncio.to_thread(self._read, "day", 0, key_id, ALL)

    def _since_day(self, since: str) -> int:
        if since == ALL:
            return 0
        try:
            seconds = checked_expiry_s(since)
        except InvalidRequest:
            seconds = None
        if seconds is None:
            units = ", ".join(UNITS_S)
            raise InvalidRequest(
                f"since is 'all' or like 7d (units: {units}), not {since[:50]!r}", param="since"
            )
        # Today counts as one of the days.
        days = -(-seconds // 86_400)
        return max(0, utc_day(self._clock.wall_us()) - days + 1)

    def _read(self, by: By, since_day: int, account: str | None, model: str) -> list[Usage]:
        with reading(self._directory.database) as connection:
            return usage.read(
                connection,
                by=by,
                since_day=since_day,
                account=account,
                model=None if model == ALL else model,
            )

    def _row(self, row: Usage, by: By) -> UsageRow:
        is_day = isinstance(row.group, int)
        return UsageRow(
            group=_day_text(int(row.group)) if is_day else str(row.group),
            name=self._keyring.get(str(row.group)).name if by == "key" else None,
            calls=row.calls,
            tokens=row.tokens,
            documents=row.documents,
            credits=credits_of(row.amount - row.refunded),
            refunds=row.refunds,
            refunded=credits_of(row.refunded),
        )


def _charged(call: ChargedCall) -> ChargedView:
    return ChargedView(
        at=iso(call.at_us) or "",
        request_id=call.request_id,
        model=call.model,
        tier=call.tier,
        units=call.units,
        unit="documents" if call.is_documents else "tokens",
        cost=credits_of(call.amount),
        refunded=call.is_refunded,
    )


def as_csv(report: UsageReport) -> str:
    """Return the rows as comma-separated values with a head; no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow((report.by, *COLUMNS[1:]))
    for row in report.data:
        cells = [getattr(row, column) for column in COLUMNS]
        writer.writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def _cell(value: object) -> str:
    text = f"{value:f}" if hasattr(value, "as_tuple") else "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _total(rows: Sequence[Usage]) -> UsageRow:
    refunded = sum(row.refunded for row in rows)
    return UsageRow(
        group="total",
        name=None,
        calls=sum(row.calls for row in rows),
        tokens=sum(row.tokens for row in rows),
        documents=sum(row.documents for row in rows),
        credits=credits_of(sum(row.amount for row in rows) - refunded),
        refunds=sum(row.refunds for row in rows),
        refunded=credits_of(refunded),
    )


def _day_text(day: int) -> str:
    return (iso(day * MICROSECONDS_PER_DAY) or "")[:10]
