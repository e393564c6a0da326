"""Plan: the token sequences that a call consists of, ready to be priced and computed.

Pure functions from tokenized texts to framed sequences, one for each way in which models read
texts: single texts, pairs, a query beside its documents, and pairs in a template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.core.errors import InputTooLong, InvalidRequest
from appliance.sequences.sequence import (
    Frame,
    Side,
    Template,
    Tokens,
    TokenSequence,
    fill_template,
    frame_pair,
    frame_parts,
    frame_single,
    frame_windows,
)
from appliance.wire.questions import Cut


@dataclass(frozen=True, slots=True)
class Plan:
    """A call's sequences, and what is counted of them."""

    sequences: list[TokenSequence]
    tokens: int
    """Tokens that will be computed: what `usage` says."""
    truncated: int
    """How many texts or documents were cut."""
    windows: tuple[int, ...] | None = None
    """How many sequences each text has; None: one."""


def plan_singles(
    texts: Sequence[Tokens], frame: Frame, *, tokens_max: int, cut: Cut, param: str, words: int = 0
) -> Plan:
    """Return one framed sequence for each text, cut at the end that `cut` names.

    The first `words` tokens of each are the model's own, and stay.

    Raises:
        InputTooLong: a text does not fit and must not be cut.
        InvalidRequest: a text has no tokens, and nothing frames it.
    """
    side: Side = "start" if cut == "start" else "end"
    sequences = [
        frame_single(tokens, frame, tokens_max=tokens_max, side=side, words=words)
        for tokens in texts
    ]
    _require_tokens(sequences, param=param)
    if cut == "none":
        lengths = [len(tokens) + frame.specials for tokens in texts]
        _require_whole(sequences, lengths, tokens_max, param=param)
    return _plan(sequences)


def plan_windows(
    texts: Sequence[Tokens], frame: Frame, *, tokens_max: int, param: str, words: int = 0
) -> Plan:
    """Return as many framed sequences for each text as it takes; none is cut.

    The first `words` tokens of each are the model's own, and open each of its sequences.

    Raises:
        InvalidRequest: a text has no tokens, and nothing frames it.
    """
    framed = [frame_windows(each, frame, tokens_max=tokens_max, words=words) for each in texts]
    _require_tokens([windows[0] for windows in framed], param=param)
    plan = _plan([window for windows in framed for window in windows])
    return replace(plan, windows=tuple(map(len, framed)))


def plan_parts(texts: Sequence[Tokens], frame: Frame, *, tokens_max: int, param: str) -> Plan:
    """Return one framed sequence for all texts, each of them a part of it.

    Raises:
        InputTooLong: together they do not fit.
        InvalidRequest: a text has no tokens.
    """
    sequence = frame_parts(texts, frame)
    if len(sequence) > tokens_max:
        raise InputTooLong(
            index=0, tokens=len(sequence), tokens_max=tokens_max, param=param, may_be_cut=False
        )
    if 0 in sequence.parts:
        index = sequence.parts.index(0)
        raise InvalidRequest(f"{param}[{index}] has no tokens for this model", param=param)
    return _plan([sequence])


def plan_pairs(
    query: Tokens,
    documents: Sequence[Tokens],
    frame: Frame,
    *,
    tokens_max: int,
    truncate: bool,
    param: str = "documents",
) -> Plan:
    """Return one framed pair for each document.

    Raises:
        InputTooLong: a pair does not fit and `truncate` is False.
    """
    sequences = [frame_pair(query, tokens, frame, tokens_max=tokens_max) for tokens in documents]
    if not truncate:
        lengths = [len(query) + len(tokens) + frame.pair_specials for tokens in documents]
        _require_whole(sequences, lengths, tokens_max, param=param)
    return _plan(sequences)


def plan_cosine(
    query: Tokens,
    documents: Sequence[Tokens],
    frame: Frame,
    *,
    tokens_max: int,
    truncate: bool,
    param: str = "documents",
) -> Plan:
    """Return the query's sequence followed by one for each document.

    Raises:
        InputTooLong: a text does not fit and `truncate` is False.
        InvalidRequest: a text has no tokens, and nothing frames it.
    """
    cut: Cut = "end" if truncate else "none"
    first = plan_singles([query], frame, tokens_max=tokens_max, cut=cut, param="query")
    rest = plan_singles(documents, frame, tokens_max=tokens_max, cut=cut, param=param)
    return _plan([*first.sequences, *rest.sequences])


def plan_templated(
    query: Tokens,
    pairs: Sequence[Tokens],
    template: Template,
    *,
    tokens_max: int,
    truncate: bool,
    document_tokens_max: int | None,
    param: str = "documents",
) -> Plan:
    """Return one filled template for each pair; `query` is a pair's text up to its document.

    Raises:
        InputTooLong: the query leaves no room for a document, or a pair does not fit and
            `truncate` is False.
    """
    if len(query) + template.specials >= tokens_max:
        raise InputTooLong(
            index=0,
            tokens=len(query) + template.specials,
            tokens_max=tokens_max,
            param="query",
            may_be_cut=False,
        )
    kept = pairs
    if document_tokens_max is not None:
        kept = [pair[: len(query) + document_tokens_max] for pair in pairs]
    sequences = [fill_template(pair, template, tokens_max=tokens_max) for pair in kept]
    if not truncate:
        lengths = [len(tokens) + template.specials for tokens in kept]
        _require_whole(sequences, lengths, tokens_max, param=param)
    return _plan(sequences)


def _plan(sequences: list[TokenSequence]) -> Plan:
    return Plan(
        sequences=sequences,
        tokens=sum(map(len, sequences)),
        truncated=sum(sequence.truncated for sequence in sequences),
    )


def _require_tokens(sequences: Sequence[TokenSequence], *, param: str) -> None:
    """Refuse what cannot be computed: a text without tokens, of a model that frames none."""
    for index, sequence in enumerate(sequences):
        if len(sequence) == 0:
            raise InvalidRequest(f"{param}[{index}] has no tokens for this model", param=param)


def _require_whole(
    sequences: Sequence[TokenSequence], lengths: Sequence[int], tokens_max: int, *, param: str
) -> None:
    """Refuse a sequence that was cut; `lengths` are those of the whole ones."""
    for index, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        if sequence.truncated:
            raise InputTooLong(index=index, tokens=length, tokens_max=tokens_max, param=param)
