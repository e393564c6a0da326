"""Segments: a text cut into parts that a model takes whole.

Owns the packing. It knows nothing of tokenizers but a function that counts, because tokens of two
texts are not always the sum of each one's: every segment was counted as it stands.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from appliance.core.errors import InvalidRequest
from appliance.sequences.boundaries import By, Level, characters, cluster_end, levels, words

Count = Callable[[str], int]
"""The tokens of a text as the model is fed with it, special ones included."""

GUESSES = 4
"""So often the next place is guessed from the tokens of the last one; then the rest is halved."""
GROWTH = 2
"""How many times as long as what is known to fit, or the last segment was, the next guess may be.

Without it a text whose parts differ in tokens for a character has its whole rest counted for each
segment, in a time that grows with the square of its length.
"""
CHARS_PER_TOKEN = 4.0
"""What the first guess goes by."""
WINDOW = 8
"""An overlap is looked for in so many times as many characters as it usually has."""
OVERLAP_CHARS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a text."""

    start: int
    """In characters; what the segment repeats of the one before it included."""
    end: int
    tokens: int
    """As the model is fed with it: special ones included."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a text is to be cut."""

    by: By
    tokens_max: int
    """Of a segment, special ones included."""
    overlap: int = 0
    """Tokens, at most, that a segment repeats of the one before it, special ones not counted."""
    chars_max: int | None = None
    """Characters of a segment; None: as many as its tokens allow."""


def segments(text: str, cut: Cut, count: Count, specials: int) -> Iterator[Segment]:
    """Yield the segments of a text, in order, as they are found.

    Units of the kind that `cut.by` names are packed greedily: a segment ends where the next one
    would not fit any more. A unit that does not fit by itself is cut into the next smaller ones,
    and shares a segment with no other. Without what they overlap, segments side by side are the
    text. `specials` are the special tokens that `count` counts of an empty text.

    Raises:
        InvalidRequest: a single character has more tokens than a segment may have.
    """
    yield from _Cutter(text, cut, count, specials).parts(0, len(text), levels(cut.by, text))


class _Cutter:
    """One text on its way into segments."""

    def __init__(self, text: str, cut: Cut, count: Count, specials: int) -> None:
        self._text = text
        self._cut = cut
        self._count = count
        self._specials = specials
        self._ratio = CHARS_PER_TOKEN
        """Characters of a token, in the last segment."""
        self._last_chars = 0
        self._last_start = 0
        """Where the segment before this one begins."""

    def parts(self, start: int, end: int, kinds: Sequence[Level]) -> Iterator[Segment]:
        """Yield the segments of a part, cut into the first of these kinds and those below it."""
        if start == end:
            return
        kind, *finer = kinds
        ends = kind(self._text, start, end)
        if len(ends) == 1 and finer:  # nothing is cut; whether it fits is seen at the next kind
            yield from self.parts(start, end, finer)
            return
        at = start
        while at < end:
            found = self._next(at, ends, is_finest=not finer)
            if found is None:
                stop = ends[bisect_right(ends, at)]
                yield from self.parts(at, stop, finer)
                at = stop
                continue
            self._last_start = at
            yield found
            at = found.end

    def _next(self, at: int, ends: Sequence[int], *, is_finest: bool) -> Segment | None:
        """Return the longest segment from a place to one of some ends, or None if none fits."""
        begin = self._overlap_from(at)
        found = self._furthest(begin, at, ends)
        if found is None and begin < at:  # there is no room for what it would repeat
            begin = at
            found = self._furthest(begin, at, ends)
        if found is None:
            if is_finest:
                self._refuse(at)
            return None
        if is_finest:
            whole = cluster_end(self._text, at, found.end)
            if whole < found.end:
                shorter = self._counted(begin, whole)
                found = shorter if shorter.tokens <= self._cut.tokens_max else found
        self._learn(found)
        return found

    def _furthest(self, begin: int, at: int, ends: Sequence[int]) -> Segment | None:
        """Return the segment from `begin` to the last of the ends behind `at` that fits."""
        fits: Segment | None = None
        low, high = bisect_right(ends, at), len(ends)
        if self._cut.chars_max is not None:
            high = min(high, bisect_right(ends, begin + self._cut.chars_max))
        tokens_max = self._cut.tokens_max
        usual = max(self._last_chars, int(tokens_max * CHARS_PER_TOKEN))
        chars = min(tokens_max * self._ratio, GROWTH * usual)
        guesses, is_over = 0, False
        # All ends before `low` fit; those from `high` on do not, once one that does not was found.
        while low < high:
            if guesses < GUESSES or not is_over:
                tried = min(high - 1, max(low, bisect_right(ends, begin + int(chars)) - 1))
            else:
                tried = (low + high) // 2
            guesses += 1
            found = self._counted(begin, ends[tried])
            length = found.end - begin
            if found.tokens <= tokens_max:
                fits, low = found, tried + 1
            else:
                high, is_over = tried, True
            chars = GROWTH * length
            if guesses < GUESSES:
                content = max(1, found.tokens - self._specials)
                chars = min(chars, (tokens_max - self._specials) * length / content)
        return fits

    def _overlap_from(self, at: int) -> int:
        """Return where a segment begins that repeats the end of the one before it."""
        allowed = self._cut.overlap
        if not allowed or at == 0:
            return at
        reach = min(OVERLAP_CHARS_MAX, int(allowed * self._ratio * WINDOW) + WINDOW)
        first = max(self._last_start + 1, at - reach)
        for kind in (words, characters):
            # A word's end is where the next one begins; each unit ends before `at`.
            starts = [place for place in kind(self._text, first - 1, at) if first <= place < at]
            low, high = 0, len(starts)
            while low < high:
                middle = (low + high) // 2
                if self._counted(starts[middle], at).tokens - self._specials <= allowed:
                    high = middle
                else:
                    low = middle + 1
            if low < len(starts):
                return starts[low]
        return at

    def _counted(self, begin: int, end: int) -> Segment:
        return Segment(begin, end, self._count(self._text[begin:end]))

    def _learn(self, found: Segment) -> None:
        content = max(1, found.tokens - self._specials)
        self._last_chars = found.end - found.start
        self._ratio = max(0.25, (found.end - found.start) / content)

    def _refuse(self, at: int) -> None:
        tokens = self._counted(at, at + 1).tokens
        raise InvalidRequest(
            f"the character at {at} alone has {tokens} tokens with the special ones; "
            f"a segment may have {self._cut.tokens_max}",
            param="tokens_max",
        )
