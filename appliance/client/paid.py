"""Paid: what a paid call answers, checked before anything of it is shown. Pure."""

import math
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from appliance.client.errors import StrangeAnswer

T = TypeVar("T")
COST_CHARS_MAX = 40


@dataclass(frozen=True, slots=True)
class Vectors:
    """The answer to an embeddings call."""

    rows: list[list[float]]
    """At least one; all of one length; finite."""
    cost: str
    """Credits, as the server wrote them."""
    ms: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One document of a ranking."""

    score: float
    """Finite."""
    text: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer to a rerank call."""

    hits: list[Hit]
    cost: str
    """Credits, as the server wrote them."""
    ms: float


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Embeddings(msgspec.Struct):
    data: list[_Vector]


class _Document(msgspec.Struct):
    text: str


class _Result(msgspec.Struct):
    relevance_score: float
    document: _Document


class _Rerank(msgspec.Struct):
    results: list[_Result]


def vectors_of(content: bytes, cost: str, ms: float) -> Vectors:
    """Return the vectors of an answer's body.

    Raises:
        StrangeAnswer: it holds none, or something else.
    """
    rows = [each.embedding for each in _decoded(content, _Embeddings).data]
    is_whole = bool(rows) and len({len(row) for row in rows}) == 1 and bool(rows[0])
    if not is_whole or not all(math.isfinite(number) for row in rows for number in row):
        raise StrangeAnswer("the server answered without vectors")
    return Vectors(rows, cost[:COST_CHARS_MAX], ms)


def ranking_of(content: bytes, cost: str, ms: float) -> Ranking:
    """Return the ranking of an answer's body.

    Raises:
        StrangeAnswer: it holds something else.
    """
    found = _decoded(content, _Rerank).results
    if not all(math.isfinite(each.relevance_score) for each in found):
        raise StrangeAnswer("the server answered without scores")
    hits = [Hit(each.relevance_score, each.document.text) for each in found]
    return Ranking(hits, cost[:COST_CHARS_MAX], ms)


def _decoded(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise StrangeAnswer("the server answered something that is not ours") from None
