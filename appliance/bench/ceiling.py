"""Ceiling: what the engine alone computes in this process, without HTTP, queues or credits.

Owns the runs that a server is measured against: full batches, one after the other, on as many
workers as the server would have.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from threading import Barrier

import msgspec

from appliance.bench.workload import Workload, texts
from appliance.catalog.header import Header
from appliance.catalog.headers import header_of
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.engine.backend import EngineLimits
from appliance.engine.devices import native_peak
from appliance.engine.loader import LlamaLoader, LoadedModel
from appliance.scheduler.packer import Turn, pack
from appliance.sequences.sequence import TokenSequence, frame_single

NS_PER_S = 1_000_000_000
BODIES = 64
"""Bodies of the workload that are computed, over and over."""
PEAK_SECONDS = 0.3
PEAK_STEPS = 200_000
"""Of the peak, in one call: a few milliseconds."""


class Ceiling(msgspec.Struct, frozen=True):
    """What the engine alone reached on one workload."""

    workload: str
    workers: int
    threads: int
    """Of each worker."""
    texts_per_s: float
    tokens_per_s: float
    batch_ms: float
    """Mean time of one call of the engine."""
    gflops: float = 0.0
    """Billions of operations a second of matrix products; attention and the rest not counted."""
    peak_gflops: float = 0.0
    """What the kernels in use can do with these threads; 0 where they are not ours."""


def peak(threads: int, *, seconds: float, clock: Clock) -> float:
    """Return what so many threads can compute together, in GFLOP/s; 0 where nobody knows.

    Multiply-adds in registers, as a roofline takes them (Williams, Waterman and Patterson, 2009):
    no product can be faster. A processor's clock differs from minute to minute, so this is
    measured beside each workload.
    """
    together = Barrier(threads)

    def work(_: int) -> float:
        native_peak(PEAK_STEPS)
        together.wait()
        began_ns, done = clock.monotonic_ns(), 0
        while (elapsed_ns := clock.monotonic_ns() - began_ns) < seconds * NS_PER_S:
            done += native_peak(PEAK_STEPS)
            if not done:
                return 0.0
        return done / elapsed_ns

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def operations_of(header: Header) -> int:
    """Return the floating-point operations of one token's matrix products."""
    weights = (tensor for name, tensor in header.tensors.items() if name.startswith("blk."))
    return sum(2 * prod(tensor.shape) for tensor in weights if len(tensor.shape) > 1)


def measure(
    spec: ModelSpec, workload: Workload, loader: LlamaLoader, *, seconds: float, clock: Clock
) -> Ceiling:
    """Compute a workload's texts for some seconds, every batch full, every worker busy."""
    encoder = loader.open_encoder(spec)
    given = [text for body in texts(workload)[:BODIES] for text in body]
    sequences = [
        frame_single(tokens, encoder.frame, tokens_max=spec.entry.max_input_tokens)
        for tokens in encoder.tokenizer.encode(given)
    ]
    model = loader.open_model(spec)
    try:
        if loader.is_measurable(spec) and (tuning := loader.measure_tuning(spec, model.weights)):
            model = replace(model, tuning=tuning)
        found = _run(model, workload, sequences, seconds=seconds, clock=clock)
    finally:
        model.weights.close()
    operations = operations_of(header_of(spec.path))
    return msgspec.structs.replace(
        found,
        gflops=found.tokens_per_s * operations / 1e9,
        peak_gflops=peak(found.workers * found.threads, seconds=PEAK_SECONDS, clock=clock),
    )


def _run(
    model: LoadedModel,
    workload: Workload,
    sequences: list[TokenSequence],
    *,
    seconds: float,
    clock: Clock,
) -> Ceiling:
    tuning = model.tuning
    together = Barrier(tuning.workers)

    def work(worker: int) -> tuple[int, int, int, float]:
        """Return (calls, texts, tokens, seconds) of one worker."""
        limits = tuning.worker_limits(model.weights.limits, worker=worker)
        try:
            backend = model.weights.open_backend(limits, flash_attention=tuning.attention(limits))
        except BaseException:
            together.abort()
            raise
        batches = _packed(sequences, limits)
        for warm in batches[:3]:
            backend.compute(warm, threads=tuning.threads)
        together.wait()
        began_ns = clock.monotonic_ns()
        calls = done = tokens = 0
        while clock.monotonic_ns() - began_ns < seconds * NS_PER_S:
            chosen = batches[(calls + worker) % len(batches)]
            backend.compute(chosen, threads=tuning.threads)
            calls += 1
            done += len(chosen)
            tokens += sum(map(len, chosen))
        elapsed_s = (clock.monotonic_ns() - began_ns) / NS_PER_S
        backend.close()
        return calls, done, tokens, elapsed_s

    with ThreadPoolExecutor(tuning.workers) as pool:
        workers = list(pool.map(work, range(tuning.workers)))
    return Ceiling(
        workload=workload.name,
        workers=tuning.workers,
        threads=tuning.threads,
        texts_per_s=sum(done / elapsed for _, done, _, elapsed in workers),
        tokens_per_s=sum(tokens / elapsed for _, _, tokens, elapsed in workers),
        batch_ms=1000 * sum(each[3] for each in workers) / sum(each[0] for each in workers),
    )


def _packed(sequences: list[TokenSequence], limits: EngineLimits) -> list[list[TokenSequence]]:
    batches: list[list[TokenSequence]] = []
    rest = sequences
    while rest:
        taken = len(pack([Turn(0, [[len(s) for s in rest[: limits.sequences_max]]])], limits))
        assert taken
        batches.append(rest[:taken])
        rest = rest[taken:]
    return batches
