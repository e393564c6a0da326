"""Boundaries: where a text may be cut, from headings down to characters.

Owns the rules for Markdown's structure, sentences, lines, words and characters. Each is a function
from a part of a text to the ends of its units, ascending; the last one is the end of the part, so
that units laid side by side are the text again, spaces and line ends included.

Sentences follow the idea of Unicode's default boundaries (UAX #29, section 5): a terminator, then
closing quotes and brackets, then spaces. Three things are our own. Marks that end sentences in
scripts without spaces (CJK, Thai's neighbours, Ethiopic, danda) cut at once; `.`, `!`, `?` and `…`
want a space or the end of a line. A full stop does not cut before a small letter, after an initial
or after one of a few dozen abbreviations of European languages. And an empty line always cuts. A
library was weighed: what is pure Python and well kept either brings tables for a handful of
languages or needs models that are downloaded, and a wrong cut here costs little, because segments
are packed from sentences and never lose a character.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Literal

By = Literal["tokens", "sentences", "markdown"]
Level = Callable[[str, int, int], Sequence[int]]
"""(text, start, end) to the ends of the units of that part."""
Mark = tuple[int, int]
"""Where a block of Markdown begins, and the depth of its heading or 0."""

_ANYWHERE = "。．｡！？︒︕︖؟۔।॥։።፧፨។៕။།༎᠃᠉෴‼⁇⁈⁉‽"  # noqa: RUF001 - other scripts' own marks
"""Marks after which a sentence ends even where no space follows."""
_CLOSERS = "\"'”’»›)\\]}」』】〉》）］｝〕"  # noqa: RUF001 - the same
_SENTENCE = re.compile(
    rf"[{_ANYWHERE}]+[{_CLOSERS}]*\s*"
    # A run of marks is looked at from its first one alone, and never given back: else a text of
    # marks without a space would be read again from each of them.
    rf"|(?<![.!?…])(?P<mark>[.!?…]++)[{_CLOSERS}{_ANYWHERE}]*+(?:\s+|\Z)"
    r"|\n[^\S\n]*\n\s*"
)
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")
_LINE_END = re.compile(r"\n")
_SPACES = re.compile(r"\s+")
_WORD_BEFORE = re.compile(r"[^\s(\[{\"'“‘«]*\Z")  # noqa: RUF001 - opening quotes
_WORD_CHARS = 40
"""How far back the word before a full stop is looked for."""
_ABBREVIATIONS = frozenset(
    re.findall(
        r"[a-z]+",
        """
        adj apr asst aug ave bd bzw ca capt cf col corp dec dept dipl dr ed eds eg etc feb fig figs
        gen gov hr hrsg ibid ie inc ing jan jr jul jun lt ltd maj mme mr mrs ms mt nos nov nr obs
        oct pag pp prof ref rev sect sep sept sgt sr sra st str tel usw vgl vol vols vs zb
        """,
    )
)
"""Of English, German, French, Spanish and Italian, without their stops, in small letters."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
# What is repeated is never given back: a group that could be takes memory for each time.
_UNDERLINE = re.compile(r" {0,3}(=++|-++)[ \t]*+$")
_ITEM = re.compile(r"[ \t]*+(?:[-*+]|\d{1,9}[.)])[ \t]")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*+(?:\1[ \t]*+){2,}+$")
_DEPTHS = 6

_JOINER = "\u200d"
_SKIN = range(0x1F3FB, 0x1F400)
_FLAGS = range(0x1F1E6, 0x1F200)
_CLUSTER_CHARS = 64
"""A cluster of more code points is cut like anything else."""


def levels(by: By, text: str) -> list[Level]:
    """Return the ways of cutting a text, from the one that is liked best to code points."""
    if by == "tokens":
        return [words, characters]
    if by == "sentences":
        return [sentences, lines, words, characters]
    marks = markdown(text)
    return [
        *(partial(sections, marks, depth) for depth in range(1, _DEPTHS + 1)),
        partial(blocks, marks),
        sentences,
        lines,
        words,
        characters,
    ]


def sentences(text: str, start: int, end: int) -> list[int]:
    """Return the ends of sentences, the spaces behind them included."""
    ends = []
    for found in _SENTENCE.finditer(text, start, end):
        if found["mark"] == "." and not _ends_sentence(text, start, found):
            continue
        ends.append(found.end())
    return _closed(ends, start, end)


def lines(text: str, start: int, end: int) -> list[int]:
    """Return the ends of lines."""
    return _closed([found.end() for found in _LINE_END.finditer(text, start, end)], start, end)


def words(text: str, start: int, end: int) -> list[int]:
    """Return the ends of what spaces divide, the spaces behind included."""
    return _closed([found.end() for found in _SPACES.finditer(text, start, end)], start, end)


def characters(text: str, start: int, end: int) -> Sequence[int]:
    """Return the ends of code points; `cluster_end` then keeps those together that are one sign."""
    del text
    return range(start + 1, end + 1)


def cluster_end(text: str, start: int, end: int) -> int:
    """Return the last place from `start` to `end` that does not part a letter from its marks.

    Signs of several code points are those with combining marks, joined emoji, flags and a line's
    CR LF (the common cases of UAX #29's grapheme clusters). `end` where there is no such place.
    """
    for place in range(end, max(start, end - _CLUSTER_CHARS), -1):
        if not _is_inside(text, start, place):
            return place
    return end


def sections(marks: Sequence[Mark], depth: int, _: str, start: int, end: int) -> list[int]:
    """Return the ends of Markdown's sections: what a heading of this depth or a higher begins."""
    inner = [marks[number] for number in _within(marks, start, end)]
    return _closed([at for at, level in inner if 0 < level <= depth], start, end)


def blocks(marks: Sequence[Mark], _: str, start: int, end: int) -> list[int]:
    """Return the ends of Markdown's blocks: paragraphs, list items, fenced code.

    A heading belongs to what follows it: alone it says little.
    """
    inner = _within(marks, start, end)
    return _closed([marks[n][0] for n in inner if not n or not marks[n - 1][1]], start, end)


def _closed(ends: list[int], start: int, end: int) -> list[int]:
    """Return the ends with that of the part as the last."""
    assert start < end
    if not ends or ends[-1] != end:
        ends.append(end)
    return ends


def _ends_sentence(text: str, start: int, found: "re.Match[str]") -> bool:
    """Say whether a full stop ends a sentence, by what stands before and behind it."""
    behind = found.end()
    if _EMPTY_LINE.search(found[0]):
        return True
    if behind < len(text) and text[behind].islower():
        return False
    word_match = _WORD_BEFORE.search(text[max(start, found.start() - _WORD_CHARS) : found.start()])
    word = word_match[0] if word_match else ""
    if word and all(len(part) == 1 and part.isalpha() for part in word.split(".")):
        return False  # an initial, or several
    if word.isdigit() and _begins_line(text, start, found.start() - len(word)):
        return False  # the number of a list's item
    return word.lower() not in _ABBREVIATIONS


def _begins_line(text: str, start: int, place: int) -> bool:
    before = text[max(start, place - _WORD_CHARS) : place].rstrip(" \t")
    return before.endswith("\n") or not before


def _is_inside(text: str, start: int, place: int) -> bool:
    """Say whether a place lies inside a sign of several code points."""
    if not start < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    if _JOINER in (before, after) or ord(after) in _SKIN:
        return True
    if before == "\r" and after == "\n":
        return True
    if ord(after) in _FLAGS and ord(before) in _FLAGS:
        first = place
        while first > start and ord(text[first - 1]) in _FLAGS and place - first < _CLUSTER_CHARS:
            first -= 1
        return (place - first) % 2 == 1
    return unicodedata.category(after) in ("Mn", "Mc", "Me")


def _within(marks: Sequence[Mark], start: int, end: int) -> range:
    """Return the numbers of the marks behind a start and before an end."""
    first, last = (bisect_right(marks, place, key=itemgetter(0)) for place in (start, end - 1))
    return range(first, last)


def markdown(text: str) -> list[Mark]:
    """Return where Markdown's blocks begin, each with the depth of its heading or 0.

    Of CommonMark what changes where a text is well cut: headings of both kinds, fences, items of
    lists, rules and empty lines. A fence that nothing closes ends with the text.
    """
    reader = _Blocks()
    at = 0
    for line in text.splitlines(keepends=True):
        reader.read(at, line.rstrip("\r\n"))
        at += len(line)
    return reader.marks


class _Blocks:
    """Reads a text line by line."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self._fence = ""
        """What began the fenced code that a line is in."""
        self._is_apart = True
        """Whether the next line begins a block whatever it holds."""
        self._is_paragraph = False
        """Whether the last block is a paragraph, which a line below can make a heading."""

    def read(self, at: int, line: str) -> None:
        """Take a line, without its end, and where it begins."""
        fence = _FENCE.match(line)
        if self._fence:
            if fence and fence[1].startswith(self._fence) and not line[fence.end() :].strip():
                self._fence = ""
                self._end_block()
        elif not line.strip():
            self._end_block()
        elif fence:
            self._begin(at)
            self._fence = fence[1]
        elif heading := _HEADING.match(line):
            self._begin(at, len(heading[1]))
            self._end_block()
        elif self._is_paragraph and (underline := _UNDERLINE.match(line)):
            self.marks[-1] = self.marks[-1][0], 1 if underline[1][0] == "=" else 2
            self._end_block()
        elif _RULE.match(line) or _ITEM.match(line):
            self._begin(at)
        elif self._is_apart:
            self._begin(at)
            self._is_paragraph = True

    def _begin(self, at: int, depth: int = 0) -> None:
        self.marks.append((at, depth))
        self._is_apart = self._is_paragraph = False

    def _end_block(self) -> None:
        self._is_apart, self._is_paragraph = True, False
