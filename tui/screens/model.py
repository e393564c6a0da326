"""Model: how one model is shown: its row, its state, its page.

Pure: views in, text out.
"""

from rich.cells import cell_len
from rich.text import Text

from appliance.wire.additions import AdditionView
from appliance.wire.downloads import DownloadView
from appliance.wire.engines import EngineList, EngineView
from appliance.wire.models import ModelView
from tui import figures
from tui.fit import explained, fit_of, size_of
from tui.inert import inert, plain
from tui.screens.page import Subject

BAR = 8
ADDING_BAR = 6
"""Shorter, so that the stage beside it has room in 20 cells."""
SOURCE_CHARS_MAX = 200
RUNNING = ("waiting", "fetching", "checking", "trying")
"""States of a download that has not ended."""
STOPPED = ("cancelled", "failed")
"""States of one that a pull goes on with."""


def row_of(
    model: ModelView,
    download: DownloadView | None,
    addition: AdditionView | None,
    engine: EngineView | None,
    engines: EngineList,
    name_width: int,
) -> tuple[Text, ...]:
    """Return the cells of a model's row."""
    unit = model.pricing.unit.replace("documents", "docs")
    price = f"{figures.money(model.pricing.realtime)}/{unit}"
    size = size_of(model)
    about = "" if model.size_bytes else "~"
    return (
        inert(_named(model.id, name_width)),
        Text("embed" if model.dimensions else "rerank"),
        Text(f"{about}{figures.size(size)}" if size else "?", justify="right"),
        Text(fit_of(model, engines)),
        state_of(model, download, engine) if addition is None else _adding(addition),
        Text(price),
        inert(model.license, width=14),
        Text(f"{model.max_input_tokens:,}", justify="right"),
        Text(str(model.dimensions or "-"), justify="right"),
    )


def added_row_of(addition: AdditionView, name_width: int) -> tuple[Text, ...]:
    """Return the cells of the row of a model that is being added, and is in no catalogue yet."""
    empty = Text("")
    return (
        inert(_named(addition.model, name_width)),
        *(empty, empty, empty),
        _adding(addition),
        *(empty, empty, empty, empty),
    )


def addition_detail_of(addition: AdditionView) -> Text:
    """Return the details of a model that is being added."""
    text = Text(f"Being added from {plain(addition.source, width=SOURCE_CHARS_MAX)}")
    text.append("\nc cancels; everything stays as it is", style="dim")
    return text


def _named(name: str, width: int) -> str:
    """Return a name, without its owner if it is too long with it."""
    return name if cell_len(name) <= width else f"\u2026/{name.rpartition('/')[2]}"


def state_of(model: ModelView, download: DownloadView | None, engine: EngineView | None) -> Text:
    """Return a model's state: being fetched, here, in memory, or not usable."""
    if download is not None and download.state in RUNNING:
        return _coming(download)
    if engine is not None and engine.state == "loading":
        return Text(f"{figures.bar(engine.progress, BAR)} loading", style="bold")
    if engine is not None and engine.state != "absent":
        state = "pinned" if engine.pinned and engine.state == "loaded" else engine.state
        return Text(f"\u25cf {state} {figures.size(engine.bytes)}", style="bold")
    if model.loaded:
        return Text("\u25cf loaded", style="bold")
    if model.available:
        return Text("\u25cb here, not loaded")
    return _absent(model, download)


def detail_of(model: ModelView, download: DownloadView | None, engines: EngineList | None) -> Text:
    """Return the details of a model, in a few lines."""
    facts = [f"{model.max_input_tokens:,} tokens"]
    facts += [f"{model.dimensions} dimensions"] if model.dimensions else []
    facts += [f"{figures.number(model.params)} weights"] if model.params else []
    facts += [model.quantization] if model.quantization else []
    facts += [f"{figures.money(model.pricing.realtime)} for {model.pricing.unit}"]
    facts += [model.license] if model.license else []
    facts += ["also " + ", ".join(model.aliases)] if model.aliases else []
    text = Text(f"{plain(model.description)}\n{'; '.join(map(plain, facts))}")
    why = (download.error if download and download.error else None) or model.reason
    if download is not None and download.state in RUNNING:
        text.append("\nc cancels; what is here is kept, and p goes on", style="dim")
    if why:
        text.append(f"\n{plain(why)}", style="bold")
    if engines is not None and (fit := explained(model, engines)):
        text.append(f"\n{fit}")
    return text


def subject_of(model: ModelView, engine: EngineView | None) -> Subject:
    """Return the subject of a model's page."""
    price, tuning = model.pricing, model.tuning
    prices = (
        f"{figures.money(price.realtime)} for {price.unit}, {figures.money(price.batch)} in a batch"
    )
    workers = "not measured yet"
    if tuning:
        workers = (
            f"{_count(tuning.workers, 'worker')} with {_count(tuning.threads, 'thread')} each, "
            f"batches of up to {tuning.max_batch_tokens:,} tokens"
        )
    return Subject(
        name=f"Model {model.id}",
        facts=(
            ("task", model.task),
            ("other names", ", ".join(model.aliases) or "none"),
            ("price", prices),
            ("context", f"{model.max_input_tokens:,} tokens"),
            ("dimensions", str(model.dimensions or "none: it ranks")),
            ("weights", f"{figures.number(model.params)}, {model.quantization}"),
            ("license", model.license or "not said"),
            ("workers", workers),
            ("memory", figures.size(engine.bytes) if engine and engine.bytes else "none now"),
        ),
        other="key",
        model=model.id,
        is_its=lambda call: call.model == model.id,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _coming(download: DownloadView) -> Text:
    share = download.bytes / download.bytes_total if download.bytes_total else 0.0
    rate = f" {figures.size(download.rate)}/s" if download.rate else ""
    left = "" if download.eta_s is None else f" {figures.duration(download.eta_s)}"
    state = "" if download.state == "fetching" else f" {download.state}"
    # The bar comes last: where there is no room for all, it is what is left out.
    return Text(f"{share:.0%}{rate}{left}{state} {figures.bar(share, BAR)}", style="bold")


def _adding(addition: AdditionView) -> Text:
    stage = plain(addition.stage or "begins")
    if not addition.total:
        return Text(f"+ {stage}", style="bold")
    share = addition.done / addition.total
    return Text(f"{figures.bar(share, ADDING_BAR)} {share:4.0%} {stage}", style="bold")


def _absent(model: ModelView, download: DownloadView | None) -> Text:
    if download is not None and download.state == "failed":
        return Text("! failed: p goes on", style="bold red")
    if download is not None and download.state == "cancelled":
        return Text("\u00bd stopped: p goes on")
    return Text("\u2193 can be pulled" if model.missing else "! unusable")
