"""Rerank: a query and documents to sequences, and scores to a ranking.

Owns what a rerank call is: documents in the order of their scores, billed by the document.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from appliance.core.errors import InputTooLong
from appliance.tasks.embedding import Plan, require_tokens
from appliance.tasks.sequence import (
    Frame,
    Template,
    Tokens,
    fill_template,
    frame_pair,
    frame_single,
)


def plan_pairs(
    query: Tokens, documents: Sequence[Tokens], frame: Frame, *, tokens_max: int, truncate: bool
) -> Plan:
    """Return one framed pair for each document.

    Raises:
        InputTooLong: a pair does not fit and `truncate` is False.
    """
    sequences = [frame_pair(query, tokens, frame, tokens_max=tokens_max) for tokens in documents]
    for index, (sequence, tokens) in enumerate(zip(sequences, documents, strict=True)):
        if sequence.truncated and not truncate:
            raise _too_long(index, len(query) + len(tokens) + frame.pair_specials, tokens_max)
    return Plan(
        sequences=sequences,
        tokens=sum(map(len, sequences)),
        truncated=sum(sequence.truncated for sequence in sequences),
    )


def plan_cosine(
    query: Tokens, documents: Sequence[Tokens], frame: Frame, *, tokens_max: int, truncate: bool
) -> Plan:
    """Return the query's sequence followed by one for each document.

    Raises:
        InputTooLong: a text does not fit and `truncate` is False.
        InvalidRequest: a text has no tokens, and nothing frames it.
    """
    first = frame_single(query, frame, tokens_max=tokens_max)
    if first.truncated and not truncate:
        raise InputTooLong(
            index=0, tokens=len(query) + frame.specials, tokens_max=tokens_max, param="query"
        )
    rest = [frame_single(tokens, frame, tokens_max=tokens_max) for tokens in documents]
    for index, (sequence, tokens) in enumerate(zip(rest, documents, strict=True)):
        if sequence.truncated and not truncate:
            raise _too_long(index, len(tokens) + frame.specials, tokens_max)
    require_tokens([first], param="query")
    require_tokens(rest, param="documents")
    sequences = [first, *rest]
    return Plan(
        sequences=sequences,
        tokens=sum(map(len, sequences)),
        truncated=sum(sequence.truncated for sequence in sequences),
    )


def plan_judged(
    head: Tokens,
    pairs: Sequence[Tokens],
    template: Template,
    *,
    tokens_max: int,
    truncate: bool,
    document_tokens_max: int | None,
) -> Plan:
    """Return one filled template for each pair; `head` is a pair's text up to its document.

    Raises:
        InputTooLong: the query leaves no room for a document, or a pair does not fit and
            `truncate` is False.
    """
    if len(head) + template.specials >= tokens_max:
        raise InputTooLong(
            index=0, tokens=len(head) + template.specials, tokens_max=tokens_max, param="query"
        )
    kept = pairs
    if document_tokens_max is not None:
        kept = [pair[: len(head) + document_tokens_max] for pair in pairs]
    sequences = [fill_template(pair, template, tokens_max=tokens_max) for pair in kept]
    for index, (sequence, tokens) in enumerate(zip(sequences, kept, strict=True)):
        if sequence.truncated and not truncate:
            raise _too_long(index, len(tokens) + template.specials, tokens_max)
    return Plan(
        sequences=sequences,
        tokens=sum(map(len, sequences)),
        truncated=sum(sequence.truncated for sequence in sequences),
    )


def ranking(scores: npt.NDArray[np.floating], top_n: int | None) -> list[tuple[int, float]]:
    """Return (index, score), best first, equal scores in the order of the documents.

    `top_n` above the number of documents means all of them.
    """
    order = np.argsort(-scores, kind="stable")
    if top_n is not None:
        order = order[:top_n]
    return [(int(index), float(scores[index])) for index in order]


def _too_long(index: int, tokens: int, tokens_max: int) -> InputTooLong:
    return InputTooLong(index=index, tokens=tokens, tokens_max=tokens_max, param="documents")
