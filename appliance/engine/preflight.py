"""Preflight: a model file is tried in a process of its own, which may die of it.

    python -m appliance.engine.preflight < request.json

Owns what is tried: loading, the shortest and the longest sequence, hostile texts, and whether
different texts get different results. A damaged or hostile file can make native code abort the
process, so that happens here first, within limits of memory and time. Each step is written to
standard output when it begins, and at the end the report, as JSON.
"""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from appliance.catalog.header_parser import read_header
from appliance.catalog.spec import ModelEntry, ModelSpec, checked_tariff
from appliance.core.clock import SystemClock
from appliance.core.errors import ApplianceError, InferenceFailed
from appliance.engine.backend import Backend
from appliance.engine.devices import native_devices
from appliance.engine.loader import LlamaLoader, LoadedModel, TextEncoder
from appliance.engine.tuning import default_tuning
from appliance.engine.vectors import Matrix
from appliance.sequences.prompt import query_text
from appliance.sequences.sequence import (
    Tokens,
    TokenSequence,
    fill_template,
    frame_pair,
    frame_single,
)
from appliance.settings import EngineSettings

RUN = 4_000
"""Characters of each hostile text: longer than most models take."""
CLASSES = (
    "a",
    " ",
    "0",
    ".",
    "\n",
    "\u00e9",
    "\u0301",
    "\u4e2d",
    "\u0915\u094d",
    "\U0001f600",
    "\x01",
    "\u200d",
)
"""One character of each kind that tokenizers treat differently."""
ALIKE = 1e-6
"""Scores and cosines that differ by less count as equal."""
TEXTS = (
    "A man is eating a piece of bread.",
    "Somebody eats bread.",
    "The annual report of the company shows a loss.",
)
QUERY, RELEVANT, IRRELEVANT = (
    "How do I reset my password?",
    "To reset your password, open Settings and choose Reset.",
    "The cat sat on the mat and looked at the rain.",
)


class Request(msgspec.Struct):
    """What to try."""

    entry: ModelEntry
    path: str
    memory_bytes: int
    """Bytes of address space that the process may take on a machine without a graphics card."""


class TrialReport(msgspec.Struct):
    """The result of a trial."""

    reason: str | None = None
    """Why the file must not be used; None: it may be."""
    notes: list[str] = msgspec.field(default_factory=list)
    """What an operator should know of a file that may be used."""


def main() -> None:
    """Try the file that standard input names."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    spec = ModelSpec(request.entry, checked_tariff(request.entry), Path(request.path))
    _limit_memory(request.memory_bytes)
    try:
        report = _tried(spec)
    except (ApplianceError, MemoryError) as error:
        report = TrialReport(reason=str(error) or "it does not fit in memory")
    _say(msgspec.json.encode(report).decode())


def _limit_memory(size: int) -> None:
    # A graphics card's driver reserves addresses by the hundred gigabytes.
    if all(device.kind == "cpu" for device in native_devices()):
        # macOS has this limit and refuses to set it; time is bounded there all the same.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _tried(spec: ModelSpec) -> TrialReport:
    loader = LlamaLoader(EngineSettings(), cores=1, tunings=None, clock=SystemClock())
    _say("reading its vocabulary")
    encoder = loader.open_encoder(spec)
    _say("tokenizing runs of characters")
    hostile = [character * (RUN // len(character)) for character in CLASSES]
    tokens = encoder.tokenizer.encode([*hostile, "".join(CLASSES) * 50])
    _require_known(read_header(spec.path).get_strings("tokenizer.ggml.tokens"), tokens)
    _say("loading it")
    weights = loader.open_weights(spec)
    tuning = default_tuning(1)
    limits = tuning.worker_limits(weights.limits, worker=0)
    backend = weights.open_backend(limits, flash_attention=None)
    model = LoadedModel(weights, tuning)
    _say("computing the shortest and the longest sequence")
    _compute_edges(backend, model, encoder)
    _say("computing runs of characters")
    for run in tokens[: len(CLASSES)]:
        backend.compute([_sequence(run, encoder, spec)], threads=1)
    _say("comparing answers")
    report = (
        _scores(backend, encoder) if spec.entry.pooling == "rank" else _vectors(backend, encoder)
    )
    backend.close()
    weights.close()
    return report


def _require_known(vocabulary: tuple[str, ...] | list[str], tokens: list[Tokens]) -> None:
    for row in tokens:
        if len(row) and not 0 <= int(row.min()) <= int(row.max()) < len(vocabulary):
            raise InferenceFailed("its tokenizer gives tokens that its vocabulary lacks")


def _compute_edges(backend: Backend, model: LoadedModel, encoder: TextEncoder) -> None:
    longest = min(encoder.tokens_max, model.weights.limits.ubatch_tokens_max)
    token = encoder.frame.sep if encoder.frame.sep is not None else 1
    for length in (1, longest):
        backend.compute([TokenSequence(np.full(length, token, np.int32), length, False)], threads=1)
    try:
        over = np.full(model.weights.limits.ubatch_tokens_max + 1, token, np.int32)
        backend.compute([TokenSequence(over, len(over), False)], threads=1)
    except (InferenceFailed, AssertionError, ValueError):
        return
    raise InferenceFailed("it computed a longer sequence than it can")


def _sequence(tokens: Tokens, encoder: TextEncoder, spec: ModelSpec) -> TokenSequence:
    longest = min(encoder.tokens_max, spec.entry.max_input_tokens)
    if spec.entry.pooling != "rank":
        return frame_single(tokens, encoder.frame, tokens_max=longest)
    if encoder.template is not None:
        return fill_template(tokens, encoder.template, tokens_max=longest)
    return frame_pair(tokens[:8], tokens, encoder.frame, tokens_max=longest)


def _vectors(backend: Backend, encoder: TextEncoder) -> TrialReport:
    rows = _rows(
        backend,
        [
            frame_single(tokens, encoder.frame, tokens_max=encoder.tokens_max)
            for tokens in encoder.tokenizer.encode([*TEXTS, TEXTS[0]])
        ],
    )
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    near, far, same = float(unit[0] @ unit[1]), float(unit[0] @ unit[2]), float(unit[0] @ unit[3])
    if not np.isfinite(unit).all() or same < 0.999:  # noqa: PLR2004 - the same text twice
        return TrialReport("the same text gets two vectors, or none")
    if max(near, far) > 1 - ALIKE:
        return TrialReport("every text gets the same vector")
    if near <= far:
        return TrialReport(notes=["two texts that say the same are no nearer than two that do not"])
    return TrialReport()


def _scores(backend: Backend, encoder: TextEncoder) -> TrialReport:
    documents = (RELEVANT, IRRELEVANT, TEXTS[2])
    if encoder.template is not None:
        head = query_text(QUERY, None)
        pairs = encoder.tokenizer.encode([head + document for document in documents])
        sequences = [
            fill_template(pair, encoder.template, tokens_max=encoder.tokens_max) for pair in pairs
        ]
    else:
        query, *rest = encoder.tokenizer.encode([QUERY, *documents])
        sequences = [
            frame_pair(query, tokens, encoder.frame, tokens_max=encoder.tokens_max)
            for tokens in rest
        ]
    scores = _rows(backend, sequences)[:, 0]
    if float(np.ptp(scores)) < ALIKE:
        return TrialReport("it scores everything alike: its head is missing or not what it says")
    if int(np.argmax(scores)) != 0:
        return TrialReport(notes=["it ranks an answer below texts that have nothing to do with it"])
    return TrialReport()


def _rows(backend: Backend, sequences: list[TokenSequence]) -> Matrix:
    return np.concatenate([backend.compute([sequence], threads=1) for sequence in sequences])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
