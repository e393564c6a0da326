"""Planning: from the texts of a call to its sequences, on the event loop or in turns on threads."""

from collections.abc import Sequence

from appliance.catalog.spec import ModelSpec
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
) -> Plan:
    """Tokenize texts and frame them on threads, in the turn of a key and in slices."""
    enough = task.tokens_enough(_tokens_max(spec, encoder))
    *first, last = slices(texts, SLICE_CHARS)
    tokens: list[Tokens] = []
    for part in first:
        chars = sum(map(len, part))
        tokens += await lease.in_thread(encoder.tokenizer.encode, part, enough, key=key, cost=chars)
    cost = sum(map(len, last)) + len(texts)
    return await lease.in_thread(planned, task, spec, last, encoder, tokens, key=key, cost=cost)


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
