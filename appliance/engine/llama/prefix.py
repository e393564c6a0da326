"""Prefix: the beginnings that the sequences of a batch have in common.

Owns the order and the layout in which a common prefix is computed once for all sequences that have
it: a tree of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.sequences.sequence import Tokens


@dataclass(frozen=True, slots=True)
class PrefixLayout:
    """A batch in an order in which sequences with a common prefix are neighbours."""

    order: list[int]
    """Place in the layout to index in the batch."""
    shared: list[int]
    """Leading tokens of each place that an earlier place holds; never all of its tokens."""


def layout_shared(tokens: Sequence[Tokens]) -> PrefixLayout:
    """Return the layout in which each common prefix is held once."""
    # Any order of whole tokens makes equal prefixes neighbours; that of their bytes is one.
    order = sorted(range(len(tokens)), key=lambda index: tokens[index].tobytes())
    shared = [0] * len(order)
    for place in range(1, len(order)):
        shared[place] = _common(tokens[order[place - 1]], tokens[order[place]])
    return PrefixLayout(order, shared)


def layout_apart(count: int) -> PrefixLayout:
    """Return the layout in which nothing is shared."""
    return PrefixLayout(list(range(count)), [0] * count)


def owners(shared: Sequence[int], lengths: Sequence[int], place: int) -> npt.NDArray[np.int32]:
    """Return to how many places, from `place` on, each token that `place` holds belongs.

    int32[lengths[place] - shared[place]]: a token belongs to every later place whose common prefix,
    and that of all places between, reaches beyond it.
    """
    first = shared[place]
    counts = np.ones(lengths[place] - first, np.int32)
    reach = lengths[place]
    for later in range(place + 1, len(shared)):
        reach = min(reach, shared[later])
        if reach <= first:
            break
        counts[: reach - first] += 1
    return counts


def _common(one: Tokens, two: Tokens) -> int:
    """Return the length of the common prefix, less than either length."""
    limit = min(len(one), len(two)) - 1
    if limit == 0 or one[0] != two[0]:
        return 0
    differs = one[:limit] != two[:limit]
    return int(differs.argmax()) if differs.any() else limit
