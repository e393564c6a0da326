"""Packer: which sequences go into the next call of the engine.

A pure function: no clock, no thread, no queue. Property tests hold it to losing, duplicating,
reordering and over-filling nothing.
"""

from collections.abc import Sequence

from appliance.engine.backend import EngineLimits


def pack(waiting: Sequence[Sequence[int]], limits: EngineLimits) -> list[int]:
    """Return how many sequences each job gives to the next bin, from its front.

    `waiting[j]` has the token counts of job j's next sequences. Jobs take turns, one sequence at a
    time, so that a call with one text rides along with a call of a thousand. A bin is closed at
    `bin_tokens`; a sequence longer than that is computed alone.
    """
    taken = [0] * len(waiting)
    tokens = 0
    sequences = 0
    open_jobs = [job for job, lengths in enumerate(waiting) if lengths]
    while open_jobs:
        still_open = []
        for job in open_jobs:
            length = waiting[job][taken[job]]
            fits = tokens + length <= limits.bin_tokens or tokens == 0
            if not fits or sequences == limits.sequences_max:
                continue
            assert length <= limits.ubatch_tokens_max
            taken[job] += 1
            tokens += length
            sequences += 1
            if taken[job] < len(waiting[job]):
                still_open.append(job)
        open_jobs = still_open
    return taken
