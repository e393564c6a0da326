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
    """Tokens that it was given so far."""
    jobs: Sequence[Sequence[int]]
    """The token counts of each of its jobs' next sequences."""
    left: Sequence[int] | None = None
    """The tokens that each job still has, where jobs are finished one after the other; None: they
    take turns by sequence."""

    def tag(self, job: int, done: int) -> int:
        """Return what its turn is decided by, while a job is its next; the least comes first.

        `done` are the job's tokens in this batch: they count in the start tag already.
        """
        return self.start_tag if self.left is None else self.start_tag + self.left[job] - done


def pack(turns: Sequence[Turn], limits: EngineLimits) -> list[tuple[int, int]]:
    """Return the next batch as (turn, job) pairs, each standing for that job's next sequence.

    What a key gets is added to its start tag. Where jobs take turns, the key with the least start
    tag comes next (start-time fair queueing, see `queue`), within a batch too. Where they are
    finished in order, it is the key whose next job would end first if all keys got the same (fair
    queueing by finish tags). The batch is closed at `limits.max_batch_tokens`; a longer
    sequence is computed alone. What does not fit is passed over, and comes first in the next batch
    because its tag is the least; keys that are a batch's tokens ahead of it do not fill the gap,
    for it waits while what they fill it with is computed. Empty only when nothing fits at all.
    """
    picks: list[tuple[int, int]] = []
    tokens = 0
    taken = [[0] * len(turn.jobs) for turn in turns]
    given = [[0] * len(turn.jobs) for turn in turns]
    pending = [deque(job for job, texts in enumerate(turn.jobs) if texts) for turn in turns]
    heap = [(turns[index].tag(jobs[0], 0), index) for index, jobs in enumerate(pending) if jobs]
    heapify(heap)
    end_tag = inf  # of the keys that may still be served beside one that was passed over
    while heap and heap[0][0] < end_tag and len(picks) < limits.sequences_max:
        index = heap[0][1]
        turn, jobs, done = turns[index], pending[index], taken[index]
        job = jobs[0]
        length = turn.jobs[job][done[job]]
        if not _fits(length, tokens, limits):
            if length <= limits.ubatch_tokens_max:
                end_tag = min(end_tag, heap[0][0] + limits.max_batch_tokens)
            jobs.popleft()
        else:
            turn.start_tag += length
            tokens += length
            picks.append((index, job))
            done[job] += 1
            given[index][job] += length
            if turn.left is None:
                jobs.rotate(-1)
            if done[job] == len(turn.jobs[job]):
                jobs.remove(job)
        if jobs:
            heapreplace(heap, (turn.tag(jobs[0], given[index][jobs[0]]), index))
        else:
            heappop(heap)
    return picks


def _fits(length: int, tokens: int, limits: EngineLimits) -> bool:
    if not tokens:
        return length <= limits.ubatch_tokens_max
    return tokens + length <= limits.max_batch_tokens
