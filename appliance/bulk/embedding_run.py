"""EmbeddingRun: all texts of a file, some calls of them at a time, their vectors in order.

Owns how texts become calls and the order of their answers. Memory is bounded: by the calls in
flight and their answers, whatever the size of the file.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any

from appliance.bulk.part_file import PartFile
from appliance.bulk.read_ahead import ReadAhead
from appliance.client.embedding_calls import EmbeddedTexts
from appliance.core.errors import InvalidRequest

CALL_CHARS_MAX = 1_000_000
"""Of the texts of one call; a longer text has a call of its own."""

Embed = Callable[[list[str], int], Awaitable[EmbeddedTexts]]
"""Of the texts of a call, and the number of the row that its first text is."""


@dataclass(slots=True)
class Totals:
    """What a run did."""

    rows: int = 0
    resumed: int = 0
    """Rows that an earlier run had made."""
    tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)
    """Credits."""


def calls_of(texts: Iterator[str], size: int, *, first: int) -> Iterator[list[str]]:
    """Yield the texts of each call: up to `size` of them, and `CALL_CHARS_MAX` characters.

    Raises:
        InvalidRequest: a text is empty; the message names its row, counted from `first`.
    """
    call: list[str] = []
    chars = 0
    for number, text in enumerate(texts, start=first):
        if not text.strip():
            raise InvalidRequest(f"row {number} is empty; take it out")
        if call and (len(call) >= size or chars + len(text) > CALL_CHARS_MAX):
            yield call
            call, chars = [], 0
        call.append(text)
        chars += len(text)
    if call:
        yield call


def require_whole(texts: Iterator[str]) -> None:
    """Read all texts once, before anything is paid for.

    Raises:
        InvalidRequest: a row has no text; the message names it.
    """
    for _ in calls_of(texts, 1, first=1):
        pass


def _left(texts: Iterator[str], done: int, size: int) -> Iterator[list[str]]:
    """Yield the calls behind the first `done` rows.

    Raises:
        InvalidRequest: there are fewer rows, or one has no text.
    """
    if sum(1 for _ in islice(texts, done)) < done:
        raise InvalidRequest("the input has fewer rows than were made of it; --restart begins anew")
    yield from calls_of(texts, size, first=done + 1)


async def run(
    texts: Iterator[str],
    embed: Embed,
    part: PartFile,
    *,
    size: int,
    in_flight: int,
    progress: Callable[[Totals], None],
) -> Totals:
    """Embed all texts that are not in `part` yet, and write them there in order.

    Raises:
        InvalidRequest: a row has no text, or the model has changed.
        ServerUnreachable: the server refused a call, or answers no more.
    """
    totals = Totals(rows=part.rows, resumed=part.rows)
    place, is_more = part.rows + 1, True
    calls = ReadAhead(_left(texts, part.rows, size), in_flight)
    waiting: deque[asyncio.Task[EmbeddedTexts]] = deque()
    try:
        while True:
            while is_more and len(waiting) < in_flight:
                if call := await calls.next():
                    waiting.append(asyncio.create_task(_checked(embed, call, place)))
                    place += len(call)
                else:
                    is_more = False
            if not waiting:
                return totals
            found = await waiting.popleft()
            part.add(found.rows, found.fingerprint)
            part.flush()
            totals.rows += len(found.rows)
            totals.tokens += found.tokens
            totals.cost += found.cost
            progress(totals)
    finally:
        calls.close()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _checked(embed: Embed, call: list[str], place: int) -> EmbeddedTexts:
    found = await embed(call, place)
    if len(found.rows) != len(call):
        raise InvalidRequest("the server answered with another number of vectors than of texts")
    return found


def body_of(model: str, texts: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a call; options that are None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    return {"model": model, "input": texts, **given}
