"""Packer: which sequences go into the next call of the engine.

A pure function: no clock, no thread, no queue. Property tests hold it to losing, duplicating,
reordering and over-filling nothing, and to being fair.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.engine.backend import EngineLimits

QUANTUM = 32
"""Tokens that a key may add before the next key's turn. Smaller than a bin, so that keys share
bins; the size of a search query, so that one is not cut in two turns."""


@dataclass(slots=True)
class Turn:
    """One key in the round."""

    deficit: int
    """Tokens that it may still take before others must; negative: it has taken more."""
    jobs: Sequence[Sequence[int]]
    """The token counts of each of its jobs' next sequences."""


def pack(turns: Sequence[Turn], limits: EngineLimits) -> list[tuple[int, int]]:
    """Return the next bin as (turn, job) pairs, each standing for that job's next sequence.

    Keys take turns by surplus round robin: deficit round robin (Shreedhar and Varghese, 1995) in
    the form that lets a key overdraw and pay in later rounds, so that no text is too long for its
    turn. A key's jobs take turns by sequence. Deficits are updated in place. The bin is closed at
    `limits.bin_tokens`; a sequence longer than that is computed alone. What does not fit waits in
    front: whoever is first in `turns` begins the next bin. Empty only when nothing fits at all.
    """
    picks: list[tuple[int, int]] = []
    tokens = 0
    taken = [[0] * len(turn.jobs) for turn in turns]
    waiting = [deque(job for job, texts in enumerate(turn.jobs) if texts) for turn in turns]
    ring = deque(index for index, jobs in enumerate(waiting) if jobs)
    while ring and len(picks) < limits.sequences_max:
        index = ring[0]
        turn, jobs, done = turns[index], waiting[index], taken[index]
        job = jobs[0]
        length = turn.jobs[job][done[job]]
        if not _fits(length, tokens, limits):
            jobs.popleft()
            if not jobs:
                ring.popleft()
            continue
        # An empty bin takes whoever is first: it cannot wait for a better moment.
        if turn.deficit <= 0 and picks:
            turn.deficit += QUANTUM
            ring.rotate(-1)
            continue
        turn.deficit -= length
        tokens += length
        picks.append((index, job))
        done[job] += 1
        jobs.rotate(-1)
        if done[job] == len(turn.jobs[job]):
            jobs.remove(job)
            if not jobs:
                ring.popleft()
    return picks


def _fits(length: int, tokens: int, limits: EngineLimits) -> bool:
    if not tokens:
        return length <= limits.ubatch_tokens_max
    return tokens + length <= limits.bin_tokens
