"""No memory: whether what a process wrote before its end speaks of a full memory."""

import re

_WORDS = re.compile(
    r"bad_alloc|MemoryError|(?:out of|insufficient|allocate) memory|"
    r"(?:failed|unable|attempted) to allocate|memory allocation of \d+ bytes failed",
    re.IGNORECASE,
)
"""What libraries write before they give up for want of memory."""


def speaks_of_no_memory(text: str) -> bool:
    """Say whether a library gave up for want of memory."""
    return _WORDS.search(text) is not None
