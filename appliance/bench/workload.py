"""Workload: the fixed, seeded loads that every measurement uses.

Owns their names, sizes and texts: the same seed gives the same bytes for every server.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["embeddings", "rerank"]

SEED = 20_261_122
BODIES = 256
"""Different bodies of each workload, sent in turn: no two of them in flight are equal, so neither
sharing equal texts nor a cache of whole responses makes a difference."""

_COMMON = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had
an they which one you were her all she there would their we him been has when who will more no if
out so said what up its about into than them can only other new some could time these two may then
do first any my now such like our over man me even most made after also did many before must
through back years where much your way well down should because each just those people how too
little state good very make world still own see men work long get here between both life being
under never day same another know while last might us great old year off come since against go
came right used take three
"""
WORDS = tuple(_COMMON.split())
"""Common English words: one token each in every vocabulary we compare."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One load: how many clients send what."""

    name: str
    kind: Kind
    connections: int
    texts: int
    """Texts or documents in one request."""
    words_min: int
    words_max: int


WORKLOADS = (
    Workload("short-1", "embeddings", 1, 1, 14, 14),
    Workload("short-16", "embeddings", 16, 1, 14, 14),
    Workload("short-64", "embeddings", 64, 1, 14, 14),
    Workload("b32x64", "embeddings", 4, 32, 64, 64),
    Workload("mixed", "embeddings", 8, 8, 5, 200),
    Workload("rerank-1", "rerank", 1, 50, 30, 80),
    Workload("rerank-4", "rerank", 4, 50, 30, 80),
)


def named(names: Sequence[str]) -> list[Workload]:
    """Return workloads by name, all of them for no name.

    Raises:
        KeyError: there is no such workload.
    """
    known = {workload.name: workload for workload in WORKLOADS}
    return [known[name] for name in names] or list(WORKLOADS)


def texts(workload: Workload) -> list[list[str]]:
    """Return the texts of each body; for rerank the first one is the query."""
    chance = random.Random(f"{SEED} {workload.name}")  # noqa: S311 - repeatable, not secret
    count = workload.texts + (workload.kind == "rerank")

    def text() -> str:
        length = chance.randint(workload.words_min, workload.words_max)
        return " ".join(chance.choice(WORDS) for _ in range(length))

    return [[text() for _ in range(count)] for _ in range(BODIES)]


def bodies(workload: Workload, model: str) -> list[bytes]:
    """Return the bodies as JSON; vectors are asked for in base64, as the OpenAI SDK does."""
    return [_body(workload, model, each) for each in texts(workload)]


def _body(workload: Workload, model: str, each: list[str]) -> bytes:
    if workload.kind == "rerank":
        return msgspec.json.encode({"model": model, "query": each[0], "documents": each[1:]})
    given = each[0] if workload.texts == 1 else each
    return msgspec.json.encode({"model": model, "input": given, "encoding_format": "base64"})
