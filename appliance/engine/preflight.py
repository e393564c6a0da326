"""Preflight: a model file is tried in a process of its own, which may die of it.

    python -m appliance.engine.preflight

Owns what is tried: loading, short sequences, hostile texts, and whether different texts get
different results. A damaged or hostile file can make native code abort the process, so that happens
here first. Standard input names the file, and its end ends the process: nobody waits any more. Each
step is told on standard output when it begins, and at the end the report (see `trial_report`).
"""

import logging
import os
import resource
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from appliance import machine
from appliance.catalog.headers import header_of
from appliance.catalog.spec import ModelSpec, checked_tariff
from appliance.core.clock import SystemClock
from appliance.core.errors import ApplianceError, InferenceFailed
from appliance.engine.backend import Backend, EngineLimits, Weights
from appliance.engine.devices import native_devices
from appliance.engine.loader import LlamaLoader, TextEncoder
from appliance.engine.trial_record import Length
from appliance.engine.trial_report import Message, Request, TrialReport
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

log = logging.getLogger("gigarouter.trial")

RUN = 4_000
"""Characters of each hostile text: longer than most models take."""
CUT = 20
"""Tokens of each of them that are computed: their length is not what is tried."""
EDGES = (1, 2, 33)
"""Tokens of the shortest sequences, and of one that is longer than any vector of the processor."""
LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
"""Of the context: no more than the trial needs, whatever the model takes."""
LONG_FROM = 128
"""Tokens of the first long sequence; each one that follows has twice as many."""
STACK_BYTES = 64 << 20
"""Of the thread that tries: some tokenizers recurse once for each character."""
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


def main() -> None:
    """Try the file that standard input names."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What llama.cpp says before it refuses a file or aborts.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    os.nice(machine.NICE)  # a trial gives way to what is computed for callers
    with suppress(OSError):  # where memory runs out, this process is the one to go
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    threading.stack_size(STACK_BYTES)
    threading.Thread(target=_try, args=(request,), daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(1)


def _try(request: Request) -> None:
    """Try a file, say what was found, and end the process."""
    try:
        spec = ModelSpec(request.entry, checked_tariff(request.entry), Path(request.path))
        _limit_memory(request.memory_bytes)
        _trial(spec, long=request.long)
        _tell(Message(ended=True))
    except (MemoryError, OSError, ImportError) as error:
        _tell(Message(unfinished=f"{type(error).__name__}: {error}"))
    except BaseException:
        log.exception("an error that nobody foresaw")
        os._exit(1)
    os._exit(0)


def _limit_memory(size: int) -> None:
    # A graphics card's driver reserves addresses by the hundred gigabytes.
    if size and all(device.kind == "cpu" for device in native_devices()):
        # macOS has this limit and refuses to set it.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _trial(spec: ModelSpec, *, long: bool) -> None:
    loader = LlamaLoader(EngineSettings(), cores=1, tunings=None, clock=SystemClock())
    try:
        encoder, weights, report = _short(loader, spec)
    except ApplianceError as error:
        _tell(Message(report=TrialReport(reason=error.message)))
        return
    except (ArithmeticError, AssertionError, LookupError, ValueError) as error:
        # Ours and the libraries' checks: other files do not fail them.
        log.exception("the file fails a check")
        _tell(Message(report=TrialReport(reason=f"{type(error).__name__}: {error}")))
        return
    _tell(Message(report=report))
    if long and report.reason is None:
        _long(weights, encoder, min(encoder.tokens_max, spec.entry.max_input_tokens))


def _short(loader: LlamaLoader, spec: ModelSpec) -> tuple[TextEncoder, Weights, TrialReport]:
    _say("reading its vocabulary")
    encoder = loader.open_encoder(spec)
    _say("tokenizing runs of characters")
    hostile = [character * (RUN // len(character)) for character in CLASSES]
    tokens = encoder.tokenizer.encode([*hostile, "".join(CLASSES) * 50])
    _require_known(header_of(spec.path).get_strings("tokenizer.ggml.tokens"), tokens)
    _say("loading it")
    weights = loader.open_weights(spec)
    backend = weights.open_backend(_limits(weights, LIMITS), flash_attention=None)
    _say("computing the shortest sequences")
    for length in EDGES:
        backend.compute([_filled(weights, encoder, length)], threads=1)
    _say("computing runs of characters")
    for run in tokens:
        backend.compute([_sequence(run[:CUT], encoder, spec)], threads=1)
    _say("comparing answers")
    is_rank = spec.entry.pooling == "rank"
    report = _scores(backend, encoder) if is_rank else _vectors(backend, encoder)
    backend.close()
    return encoder, weights, report


def _limits(weights: Weights, wanted: EngineLimits) -> EngineLimits:
    tokens = min(wanted.ubatch_tokens_max, weights.limits.ubatch_tokens_max)
    return EngineLimits(tokens, min(wanted.max_batch_tokens, tokens), wanted.sequences_max)


def _long(weights: Weights, encoder: TextEncoder, longest: int) -> None:
    """Compute longer and longer sequences, each with a context of its own, on all cores."""
    longest = min(longest, weights.facts.tokens_max)
    lengths = [min(longest, LONG_FROM)]
    while lengths[-1] < longest:
        lengths.append(min(longest, 2 * lengths[-1]))
    threads, clock = machine.cores(), SystemClock()
    for length in lengths:
        _tell(Message(step=f"computing {length:,} tokens", trying_tokens=length))
        limits = EngineLimits(max(length, LIMITS.max_batch_tokens), LIMITS.max_batch_tokens, 1)
        backend = weights.open_backend(limits, flash_attention=None)
        began_ns = clock.monotonic_ns()
        backend.compute([_filled(weights, encoder, length)], threads=threads)
        seconds = round((clock.monotonic_ns() - began_ns) / 1e9, 3)
        backend.close()
        _tell(Message(length=Length(length, seconds, _peak_bytes())))


def _filled(weights: Weights, encoder: TextEncoder, length: int) -> TokenSequence:
    """Return a sequence of a length, of the tokens that close one."""
    length = min(length, encoder.tokens_max, weights.facts.tokens_max)
    token = encoder.frame.sep if encoder.frame.sep is not None else 1
    return TokenSequence(np.full(length, token, np.int32), length, truncated=False)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _require_known(vocabulary: tuple[str, ...] | list[str], tokens: list[Tokens]) -> None:
    for row in tokens:
        if len(row) and not 0 <= int(row.min()) <= int(row.max()) < len(vocabulary):
            raise InferenceFailed("its tokenizer gives tokens that its vocabulary lacks")


def _sequence(tokens: Tokens, encoder: TextEncoder, spec: ModelSpec) -> TokenSequence:
    longest = min(encoder.tokens_max, LIMITS.ubatch_tokens_max)
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


def _say(step: str) -> None:
    _tell(Message(step=step))


def _tell(message: Message) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
