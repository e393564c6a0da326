"""Panels: the content of each panel of the home tab, as lines of a given width.

Owns columns, and what is left out of narrow ones. Pure: stats in, lines out.
"""

from collections.abc import Sequence

from rich.cells import cell_len

from appliance.wire.engines import DeviceView
from appliance.wire.stats import Activity, CallView, Stats
from tui import figures
from tui.inert import plain
from tui.widgets.lines import Line, column, cut

STAGES = ("tokenize", "queue", "inference", "settle", "total")
BAD = 400
TIGHT = 0.9
"""Share of a memory from which on it is drawn as nearly full."""
NAME_MIN = 8
THOUSAND = 1000
STATUS_MIN, STATUS_MAX = 15, 26
"""Widths of the column for a status: with its code cut, and with the longest in full."""
LEAST = 11
"""Cells of both names: their titles, and a gap after each."""
COUNTED, ROOMY = 31, 36
"""Widths of a panel in cells from which documents have a column, and words are in full."""


def figures_of(stats: Stats, width: int) -> list[Line]:
    """Return the main figures in columns: name, value, and a detail."""
    limit = f"of {figures.size(stats.memory_max)}" if stats.memory_max else "no limit"
    refused = f"{figures.number(stats.errors_per_s)} refused/s"
    columns = (
        ("tokens/s", figures.number(stats.tokens_per_s), f"batches {stats.batch_fill:.0%}"),
        ("documents/s", figures.number(stats.documents_per_s), f"{stats.in_flight} in flight"),
        ("calls/s", figures.number(stats.calls_per_s), refused),
        (
            "queue",
            f"{figures.number(stats.waiting_tokens)} tok",
            f"workers {stats.workers_busy}/{stats.workers}",
        ),
        ("models", figures.size(stats.memory_taken), limit),
        ("spent today", figures.money(stats.spent_today), f"up {figures.duration(stats.uptime_s)}"),
    )
    each = max(1, width // len(columns))
    looks = ("dim", "figure", "bad" if stats.errors_per_s else "dim")
    lines: list[Line] = []
    for row, look in enumerate(looks):
        lines.append(
            tuple(
                (
                    cut(_ended(f" {cells[row]}", each), each),
                    look if row < len(looks) - 1 or cells[0] == "calls/s" else "dim",
                )
                for cells in columns
            )
        )
    return lines


def stages(stats: Stats, width: int) -> list[Line]:
    """Return the quantiles of each stage, with a bar for its share of the total p95."""
    number = min(8, (width - 9) // 2)
    lines: list[Line] = [_head(("stage", "p50", "p95"), (9, number, number))]
    whole = stats.stages.get("total")
    bar = width - 26
    for stage in STAGES:
        found = stats.stages.get(stage)
        p50, p95 = (figures.ms(found.p50), figures.ms(found.p95)) if found else ("-", "-")
        line = [(cut(stage, 9), ""), (column(p50, number), ""), (column(p95, number), "")]
        if found and whole and whole.p95 and bar >= NAME_MIN:
            share = min(1.0, found.p95 / whole.p95)
            line.append((" " + "\u2501" * round(share * bar), "middle"))
        lines.append(tuple(line))
    return lines


def models(stats: Stats, width: int) -> list[Line]:
    """Return the busiest models."""
    return _activity([(_short(row.name), row) for row in stats.models], width, "model")


def keys(stats: Stats, width: int) -> list[Line]:
    """Return the busiest keys."""
    return _activity([(plain(row.name), row) for row in stats.keys], width, "key")


def machine(stats: Stats, width: int) -> list[Line]:
    """Return how far workers, batches and the memory of each device are used."""
    workers = f"{stats.workers_busy}/{stats.workers}"
    lines = [
        _gauge(
            "workers", stats.workers_busy / stats.workers if stats.workers else 0.0, workers, width
        ),
        _gauge("batches", stats.batch_fill, f"{stats.batch_fill:.0%}", width),
    ]
    if stats.memory_max:
        said = f"{figures.size(stats.memory_taken)} of {figures.size(stats.memory_max)}"
        lines.append(_gauge("models", stats.memory_taken / stats.memory_max, said, width))
    return lines + [_of_device(device, width) for device in stats.devices]


def _of_device(device: DeviceView, width: int) -> Line:
    name = plain(device.name, width=7)
    if not device.memory:
        return (cut(name, 8), ""), (f"{figures.size(device.free)} free", "dim")
    used = device.memory - device.free
    said = f"{figures.size(used)} of {figures.size(device.memory)}"
    return _gauge(name, used / device.memory, said, width)


def _gauge(name: str, share: float, said: str, width: int) -> Line:
    room = width - 8 - cell_len(said) - 1
    look = "bad" if share >= TIGHT and name not in ("workers", "batches") else "middle"
    bar = figures.bar(share, room) + " " if room >= 4 else ""  # noqa: PLR2004 - less says nothing
    return (cut(name, 8), ""), (bar, look), (said, "dim")


def refusals(stats: Stats, width: int) -> list[Line]:
    """Return the refusals by code, with their counts."""
    if not stats.refusals:
        return [(("none", "dim"),)]
    return [
        ((cut(plain(name), width - 7), "bad"), (column(figures.number(count), 6), ""))
        for name, count in stats.refusals.items()
    ]


def _activity(rows: Sequence[tuple[str, Activity]], width: int, what: str) -> list[Line]:
    refused = ("refused", 8) if width >= ROOMY else ("err", 4)
    columns = [("calls", 6), ("tokens", 7), ("docs", 6 if width >= COUNTED else 0), refused]
    name = max(NAME_MIN, width - sum(each for _, each in columns))
    lines: list[Line] = [_head(*zip((what, name), *columns, strict=True))]
    for shown, row in rows:
        counts = (row.calls, row.tokens, row.documents)
        cells = zip(map(figures.number, counts), columns, strict=False)
        lines.append(
            (
                (cut(_ended(shown, name - 1), name), ""),
                *((column(text, each), "") for text, (_, each) in cells),
                (column(_few(row.errors), refused[1]), "bad" if row.errors else "dim"),
            )
        )
    return lines if rows else [*lines, (("nobody calls", "dim"),)]


def _few(count: int) -> str:
    """Return a count in three cells."""
    return str(count) if count < THOUSAND else ">1k"


def _head(titles: Sequence[str], widths: Sequence[int]) -> Line:
    first, *rest = zip(titles, widths, strict=True)
    return (cut(*first), "dim"), *((column(title, width), "dim") for title, width in rest)


def is_refusal(call: CallView) -> bool:
    """Return whether a call was refused or failed."""
    return call.status >= BAD


def calls(found: Sequence[CallView], width: int, height: int, nothing: str) -> list[Line]:
    """Return the last calls, newest first, below a row of titles."""
    tier = 10 if width >= 100 else 0  # noqa: PLR2004 - the longest code and the tier in full
    kinds = (len("tokens"), figures.NUMBER_WIDTH, figures.MONEY_WIDTH, figures.MS_WIDTH)
    numbers = tuple(1 + most for most in kinds)
    rest = width - 9 - tier - sum(numbers)
    status = STATUS_MAX if tier else _status_width(found, rest)
    left = max(LEAST, rest - status)
    key, model = left * 2 // 5, left - left * 2 // 5
    head = (
        cut("time", 9)
        + cut("status", status)
        + cut("key", key)
        + cut("model", model)
        + cut("tier", tier)
    )
    titles = zip(("tokens", "docs", "cost", "took"), numbers, strict=True)
    lines: list[Line] = [((head, "dim"), *((column(t, w), "dim") for t, w in titles))]
    for call in found[: max(0, height - 1)]:
        said = f"{call.status} {plain(call.code) or 'ok'}"
        names = (
            (cut(call.at[11:19], 9), "dim"),
            (cut(_ended(said, status - 1), status), "bad" if is_refusal(call) else ""),
            (cut(_ended(plain(call.key), key - 1), key), ""),
            (cut(_ended(_short(call.model), model - 1), model), ""),
            (cut(call.tier, tier), "dim"),
        )
        amounts = (
            figures.number(call.tokens),
            figures.number(call.documents) if call.documents else "-",
            figures.money(call.cost),
            figures.ms(call.ms),
        )
        cells = zip(amounts, numbers, strict=True)
        lines.append((*names, *((column(text, width), "") for text, width in cells)))
    if not found:
        lines.append(((nothing, "dim"),))
    return lines


def _status_width(found: Sequence[CallView], room: int) -> int:
    """Return the width for a status and its code: all of the longest that leaves names theirs."""
    longest = max(
        (len(f"{call.status} {plain(call.code) or 'ok'}") + 1 for call in found), default=0
    )
    # The key has two fifths of what is left, the model three.
    halves = [(len(plain(c.key)) + 1, len(_short(c.model)) + 1) for c in found]
    names = max((max(-(-5 * key // 2), -(-5 * model // 3)) for key, model in halves), default=0)
    return min(STATUS_MAX, max(STATUS_MIN, longest), max(STATUS_MIN, room - max(names, LEAST)))


def _short(name: str) -> str:
    """Return a model's name without its owner."""
    return plain(name.rpartition("/")[2])


def _ended(text: str, width: int) -> str:
    """Return text that ends with an ellipsis if it was cut."""
    return text if cell_len(text) <= width else cut(text, width - 1).rstrip() + "\u2026"
