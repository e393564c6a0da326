"""Embedding: texts to sequences.

Owns what an embeddings call is: one sequence for each text, billed by the token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.core.errors import InputTooLong, InvalidRequest, UnsupportedDimensions
from appliance.tasks.sequence import Frame, Tokens, TokenSequence, frame_single


@dataclass(frozen=True, slots=True)
class Plan:
    """A call, ready to be priced and computed."""

    sequences: list[TokenSequence]
    tokens: int
    """Tokens that will be computed: what `usage` says."""
    truncated: int
    """How many texts or documents were cut."""


def require_dimensions(
    asked: int | None, dimensions: int | None, matryoshka: Sequence[int]
) -> None:
    """Refuse a vector size that the model does not have.

    Raises:
        UnsupportedDimensions: neither its own size nor one it was trained to be cut to.
    """
    if asked is None or dimensions is None or asked == dimensions or asked in matryoshka:
        return
    raise UnsupportedDimensions(asked=asked, dimensions=dimensions, sizes=matryoshka)


def require_tokens(sequences: Sequence[TokenSequence], *, param: str) -> None:
    """Refuse what cannot be computed: a text without tokens, of a model that frames none.

    Raises:
        InvalidRequest: a sequence is empty.
    """
    for index, sequence in enumerate(sequences):
        if len(sequence) == 0:
            raise InvalidRequest(f"{param}[{index}] has no tokens for this model", param=param)


def plan_singles(
    texts: Sequence[Tokens], frame: Frame, *, tokens_max: int, truncate: bool, param: str
) -> Plan:
    """Return one framed sequence for each text.

    Raises:
        InputTooLong: a text does not fit and `truncate` is False.
        InvalidRequest: a text has no tokens, and nothing frames it.
    """
    sequences = [frame_single(tokens, frame, tokens_max=tokens_max) for tokens in texts]
    require_tokens(sequences, param=param)
    if not truncate:
        for index, (sequence, tokens) in enumerate(zip(sequences, texts, strict=True)):
            if sequence.truncated:
                raise InputTooLong(
                    index=index,
                    tokens=len(tokens) + frame.specials,
                    tokens_max=tokens_max,
                    param=param,
                )
    return Plan(
        sequences=sequences,
        tokens=sum(map(len, sequences)),
        truncated=sum(sequence.truncated for sequence in sequences),
    )
