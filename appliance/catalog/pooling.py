"""Pooling: of which models a vector is the mean of its tokens' rows and nothing more.

Their rows are averaged by us, and so a part of a text can have a vector too.
"""

from appliance.catalog.capacity import DECODERS

AFTER_POOLING = frozenset({"gemma-embedding"})
"""Architectures that compute further with what was pooled."""


def is_mean_of_tokens(architecture: str, pooling: str) -> bool:
    """Say whether a sequence's row is the mean of its tokens' rows, read from a context."""
    return pooling == "mean" and architecture not in DECODERS | AFTER_POOLING
