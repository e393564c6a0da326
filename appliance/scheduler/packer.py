"""Packer: which sequences go into the next call of the engine.

A pure function: no clock, no thread, no queue. Property tests check that it loses, duplicates,
reorders and overfills nothing, and that it is fair.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from math import inf

from appliance.engine.backend import EngineLimits


@dataclass(slots=True)
class Turn:
    """A key that takes turns with others."""

    start_tag: int
    """Tokens that it was given so far; the key with the fewest comes next."""
    jobs: Sequence[Sequence[int]]
    """The token counts of each of its jobs' next sequences."""
    in_order: bool = False
    """True: its jobs are finished one after the other; False: they take turns by sequence."""


def pack(turns: Sequence[Turn], limits: EngineLimits) -> list[tuple[int, int]]:
    """Return the next batch as (turn, job) pairs, each standing for that job's next sequence.

    The key with the least start tag comes next, and what it gets is added to its tag: start-time
    fair queueing (see `queue`), which holds within a batch too. A key's jobs take turns by
    sequence, or are finished in order. The batch is closed at `limits.max_batch_tokens`; a longer
    sequence is computed alone. What does not fit is passed over, and comes first in the next batch
    because its tag is the least; keys that are a batch's tokens ahead of it do not fill the gap,
    for it waits while what they fill it with is computed. Empty only when nothing fits at all.
    """
    picks: list[tuple[int, int]] = []
    tokens = 0
    taken = [[0] * len(turn.jobs) for turn in turns]
    pending = [deque(job for job, texts in enumerate(turn.jobs) if texts) for turn in turns]
    heap = [(turns[index].start_tag, index) for index, jobs in enumerate(pending) if jobs]
    heapify(heap)
    end_tag = inf  # of the keys that may still be served beside one that was passed over
    while heap and heap[0][0] < end_tag and len(picks) < limits.sequences_max:
        index = heap[0][1]
        turn, jobs, done = turns[index], pending[index], taken[index]
        job = jobs[0]
        length = turn.jobs[job][done[job]]
        if not _fits(length, tokens, limits):
            if length <= limits.ubatch_tokens_max:
                end_tag = min(end_tag, turn.start_tag + limits.max_batch_tokens)
            jobs.popleft()
            if not jobs:
                heappop(heap)
            continue
        turn.start_tag += length
        tokens += length
        picks.append((index, job))
        done[job] += 1
        if not turn.in_order:
            jobs.rotate(-1)
        if done[job] == len(turn.jobs[job]):
            jobs.remove(job)
        if jobs:
            heapreplace(heap, (turn.start_tag, index))
        else:
            heappop(heap)
    return picks


def _fits(length: int, tokens: int, limits: EngineLimits) -> bool:
    if not tokens:
        return length <= limits.ubatch_tokens_max
    return tokens + length <= limits.max_batch_tokens
