"""Audit: `gigarouter audit`: what operators did, the last line last."""

from collections import deque

import click

from appliance.cli import printing
from appliance.cli.options import everywhere
from appliance.core.clock import SystemClock
from appliance.core.text import visible
from appliance.store.audit_log import AuditLog
from appliance.store.datadir import DataDir
from appliance.wire.audit import AuditLine


@click.command()
@click.option("--lines", default=50, show_default=True, type=click.IntRange(1, 100_000))
@everywhere
def audit(directory: DataDir, *, as_json: bool, lines: int) -> None:
    """Show who did what, when, from where, and how it ended; refused attempts by the minute."""
    found = deque(AuditLog(directory.audit_log, SystemClock()).lines(), maxlen=lines)
    if as_json:
        printing.document(list(found))
        return
    printing.table(
        ("WHEN", "WHO", "FROM", "WHAT", "OUTCOME"),
        [(each.at, each.who, each.origin or "-", _what(each), each.outcome) for each in found],
    )


def _what(line: AuditLine) -> str:
    order = [f"{key}={_text(value)}" for key, value in line.order.items()]
    return visible(" ".join((line.what, *line.target, *order)))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
