"""Planning: from the texts of a call to its sequences, on the event loop or in turns on threads."""

from collections.abc import Sequence

from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.engine.loader import TextEncoder
from appliance.engine.tokenizer import slices
from appliance.scheduler.lease import Lease
from appliance.sequences.sequence import Tokens
from appliance.tasks.plan import Plan
from appliance.tasks.task import Task

INLINE_CHARS = 500
"""Texts up to this are tokenized on the event loop: that takes less than waking another thread."""
CHARS_PER_TOKEN = 8
"""Nearly twice as many as English texts have in a small vocabulary."""
USUAL = 1.6
"""How many times as many tokens they have."""
SLICE_CHARS = 100_000
"""Characters that a thread tokenizes for one call before it looks whose turn it is."""


async def planned_in_turn(
    key: str,
    task: Task,
    spec: ModelSpec,
    texts: list[str],
    encoder: TextEncoder,
    lease: Lease,
    limits: Limits,
) -> Plan:
    """Tokenize texts and frame them on threads, in the turn of a key and in slices.

    Raises:
        InvalidRequest: they have more tokens than a call may have; the rest is not looked at.
    """
    enough = task.tokens_enough(_tokens_max(spec, encoder))
    *first, last = slices(texts, SLICE_CHARS) if texts else [[]]
    tokens: list[Tokens] = []
    counted = 0
    for part in first:
        chars = sum(map(len, part))
        found = await lease.in_thread(encoder.tokenizer.encode, part, enough, key=key, cost=chars)
        tokens += found
        counted += sum(map(len, found))
        require_bounded(counted, limits, param=task.param, word="at least ")
    cost = task.size(last) + len(texts)
    return await lease.in_thread(planned, task, spec, last, encoder, tokens, key=key, cost=cost)


def require_bounded(tokens: int, limits: Limits, *, param: str, word: str = "") -> None:
    """Refuse a call with more tokens than one may have.

    Raises:
        InvalidRequest: as said.
    """
    if tokens > limits.request_tokens_max:
        raise InvalidRequest(
            f"the call has {word}{tokens} tokens; {limits.request_tokens_max} at most: split it",
            param=param,
        )


def tokens_about(texts: Sequence[str], encoder: TextEncoder) -> int:
    """Return fewer tokens than texts usually have, from their characters."""
    most = encoder.tokens_max
    return sum(min(most, max(1, len(text) // CHARS_PER_TOKEN)) for text in texts)


def planned(
    task: Task,
    spec: ModelSpec,
    texts: list[str],
    encoder: TextEncoder,
    before: Sequence[Tokens] = (),
) -> Plan:
    """Tokenize texts and frame them, on whatever thread this is called.

    `before` are the tokens of texts that come before these.
    """
    tokens_max = _tokens_max(spec, encoder)
    tokens = encoder.tokenizer.encode(texts, task.tokens_enough(tokens_max))
    return task.plan(spec, [*before, *tokens], encoder, tokens_max)


def _tokens_max(spec: ModelSpec, encoder: TextEncoder) -> int:
    return min(spec.entry.max_input_tokens, encoder.tokens_max)
