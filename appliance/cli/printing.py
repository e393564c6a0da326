"""Printing: results of commands, as tables for people or as one JSON document for programs.

Owns standard output.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import click

from appliance.cli import progress
from appliance.core.clock import SystemClock, iso
from appliance.core.text import cells, padded, visible, visible_lines
from appliance.core.units import dollars
from appliance.wire.books import BackupList
from appliance.wire.doctor import Report
from appliance.wire.json import encode
from appliance.wire.keys import KeyView, MintedKey, RotatedKey
from appliance.wire.models import ModelView, PriceView, TrialView, TuningView
from appliance.wire.usage import UsageReport


def document(value: Any) -> None:
    """Print one JSON document."""
    click.echo(encode(value))


def minted(key: MintedKey) -> None:
    """Print a new key on standard output, and what it is on standard error."""
    click.echo(key.key)
    click.echo(
        f"Key {key.id} ({key.name}) has {credit(key.credit)}. It is shown this once: keep it.",
        err=True,
    )


def rotated(key: RotatedKey) -> None:
    """Print a key's new credential, and how long the previous one works."""
    click.echo(key.key)
    click.echo(
        f"Key {key.id} ({key.name}): this is shown once: keep it. "
        f"The secret before it works until {key.replaced_until}.",
        err=True,
    )


def keys(views: Sequence[KeyView]) -> None:
    """Print keys as a table."""
    table(
        ("ID", "NAME", "KEY", "CREDIT", "SPENT TODAY", "STATE"),
        [(v.id, v.name, v.hint, credit(v.credit), dollars(v.spent_today), state(v)) for v in views],
    )


def key(view: KeyView) -> None:
    """Print one key, a line for each fact."""
    facts = {
        "id": view.id,
        "name": view.name,
        "key": view.hint,
        "state": state(view),
        "credit": credit(view.credit),
        "spent today": dollars(view.spent_today),
        "last used": view.last_used or "never",
        "daily budget": credit(view.daily_budget, none="none"),
        "requests/min": view.rpm or "any",
        "tokens/min": view.tpm or "any",
        "concurrency": view.concurrency or "any",
        "models": ", ".join(view.models) if view.models else "all",
        "scopes": ", ".join(view.scopes),
        "created": view.created,
        "expires": view.expires or "never",
        "older secrets": ", ".join(f"until {at}" for at in view.retiring) or "none",
    }
    pairs(facts)


def models(views: Sequence[ModelView]) -> None:
    """Print models as a table."""
    table(
        ("ID", "TASK", "VECTOR", "PRICE", "STATE"),
        [
            (
                view.id,
                view.task,
                f"{view.dimensions} dimensions" if view.dimensions else "-",
                f"{dollars(view.pricing.realtime)} for {view.pricing.unit}",
                "loaded" if view.loaded else "available" if view.available else "not here",
            )
            for view in views
        ],
    )


def model(view: ModelView) -> None:
    """Print one model, a line for each fact."""
    pairs(
        {
            "id": view.id,
            "aliases": ", ".join(view.aliases) or "none",
            "task": view.task,
            "description": view.description,
            "available": "yes" if view.available else view.reason,
            "loaded": "yes" if view.loaded else "no",
            "dimensions": view.dimensions or "-",
            "max input tokens": view.max_input_tokens,
            "parameters": f"{view.params:,}",
            "quantization": view.quantization or "-",
            "license": view.license or "not stated",
            "price": _price(view.pricing.realtime, view.pricing) + _each(view.pricing),
            "batch price": _price(view.pricing.batch, view.pricing),
            "tuning": tuning(view.tuning),
        }
    )
    if view.trial is not None:
        trial(view.trial)


def _price(amount: Decimal, price: PriceView) -> str:
    return f"{dollars(amount)} for {price.unit}"


def _each(price: PriceView) -> str:
    each = price.tokens_per_document
    return f", a document for each {each:,} tokens of it and the query" if each else ""


def trial(view: TrialView) -> None:
    """Print what the trial of a model's file found."""
    crashed = view.crashed_tokens
    pairs(
        {
            "trial": view.reason or "passed",
            **({"to know": "; ".join(view.notes)} if view.notes else {}),
            **({"too long": f"{crashed:,} tokens crashed llama.cpp"} if crashed else {}),
            **{f"{each.tokens:,} tokens": progress.length(each) for each in view.lengths},
        }
    )
    if view.stderr:
        click.echo(visible_lines(view.stderr))


def tuning(view: TuningView | None) -> str:
    """Return a model's tuning in one line."""
    if view is None:
        return "measured at its first load"
    flash = {None: "auto", True: "on", False: "off"}[view.flash_attention]
    return (
        f"{_count(view.workers, 'worker')} with {_count(view.threads, 'thread')} each, "
        f"{_count(view.threads_alone, 'thread')} for a call alone, "
        f"batches of up to {view.max_batch_tokens:,} tokens, flash attention {flash} "
        f"({view.origin})"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def backups(found: BackupList) -> None:
    """Print the scheduled backups as a table, and the error of the last one if it failed."""
    table(
        ("FILE", "BYTES", "CREATED"),
        [(view.path, str(view.bytes), view.created) for view in found.data],
    )
    if found.last_error:
        click.echo(f"The last one failed: {found.last_error}", err=True)


def usage(report: UsageReport) -> None:
    """Print usage as a table, with the total in its last row."""
    rows = [*report.data, report.total]
    table(
        (report.by.upper(), "NAME", "CALLS", "TOKENS", "DOCUMENTS", "SPENT", "REFUNDED"),
        [
            (
                row.group,
                row.name or "",
                f"{row.calls:,}",
                f"{row.tokens:,}",
                f"{row.documents:,}",
                dollars(row.credits),
                dollars(row.refunded),
            )
            for row in rows
        ],
    )


def credit(amount: Decimal | None, *, none: str = "unlimited") -> str:
    """Return an amount in dollars, or `none` where there is no limit."""
    return none if amount is None else dollars(amount)


def state(view: KeyView) -> str:
    """Return a key's state: live, revoked, expired or forgotten, and since when."""
    if view.forgotten:
        return f"forgotten {view.forgotten}"
    if view.revoked:
        return f"revoked {view.revoked}"
    if view.expires and view.expires <= (iso(SystemClock().wall_us()) or ""):
        return f"expired {view.expires}"
    return "live"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; control characters in cells are replaced."""
    shown = [[_inert(cell) for cell in row] for row in (head, *rows)]
    widths = [max(cells(row[column]) for row in shown) for column in range(len(head))]
    for row in shown:
        line = "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def pairs(facts: dict[str, Any]) -> None:
    """Print one fact on each line; control characters are replaced."""
    width = max(map(cells, facts))
    for name, value in facts.items():
        click.echo(f"{padded(name, width)}  {_inert(str(value))}")


def _inert(text: str) -> str:
    return visible(text)


def health(report: Report) -> None:
    """Print each finding on a line, with its remedy below it."""
    marks = {"ok": "\u2713", "warn": "!", "fail": "\u2717"}
    for each in report.data:
        click.echo(f"{marks[each.status]} {each.name:8} {visible(each.said)}")
        if each.fix:
            click.echo(f"  {'':8} fix: {visible(each.fix)}")
