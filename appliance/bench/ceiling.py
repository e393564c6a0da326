"""Ceiling: what the raw engine computes in this process, without HTTP, queues or money.

Owns the loads that a server is measured against: bins packed by hand, back to back. Deliberately
shares the server's own loader, so that both run the same weights with the same settings.
"""

import msgspec

from appliance.bench.workload import Workload, texts
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.engine.backend import Backend
from appliance.engine.loader import LlamaLoader
from appliance.scheduler.packer import pack
from appliance.tasks.sequence import TokenSequence, frame_single

NS_PER_S = 1_000_000_000


class Ceiling(msgspec.Struct, frozen=True):
    """What the engine reached on one workload."""

    workload: str
    threads: int
    texts_per_s: float
    tokens_per_s: float
    bin_ms: float
    """Mean time of one call of the engine."""


def measure(
    spec: ModelSpec, workload: Workload, *, threads: int, seconds: float, clock: Clock
) -> Ceiling:
    """Compute a workload's texts for some seconds, every bin full."""
    loader = LlamaLoader(threads=threads)
    encoder = loader.open_encoder(spec)
    given = [text for body in texts(workload) for text in body]
    sequences = [
        frame_single(tokens, encoder.frame, tokens_max=spec.entry.max_input_tokens)
        for tokens in encoder.tokenizer.encode(given)
    ]
    backend = loader.open_backend(spec)
    try:
        return _run(backend, workload, sequences, threads=threads, seconds=seconds, clock=clock)
    finally:
        backend.close()


def _run(
    backend: Backend,
    workload: Workload,
    sequences: list[TokenSequence],
    *,
    threads: int,
    seconds: float,
    clock: Clock,
) -> Ceiling:
    bins: list[list[TokenSequence]] = []
    rest = sequences
    while rest:
        [taken] = pack([[len(s) for s in rest[: backend.limits.sequences_max]]], backend.limits)
        bins.append(rest[:taken])
        rest = rest[taken:]
    for warm in bins[:3]:
        backend.compute(warm)
    began_ns = clock.monotonic_ns()
    until_ns = began_ns + int(seconds * NS_PER_S)
    calls = done = tokens = 0
    while clock.monotonic_ns() < until_ns:
        chosen = bins[calls % len(bins)]
        backend.compute(chosen)
        calls += 1
        done += len(chosen)
        tokens += sum(map(len, chosen))
    elapsed_s = (clock.monotonic_ns() - began_ns) / NS_PER_S
    return Ceiling(
        workload=workload.name,
        threads=threads,
        texts_per_s=done / elapsed_s,
        tokens_per_s=tokens / elapsed_s,
        bin_ms=elapsed_s * 1000 / calls,
    )
