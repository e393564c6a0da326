r"""Text: how text from outside is shown on a terminal, in a log and in an error message.

Owns the one rule for file metadata, file names, headers, names of repositories, output of other
programs and the messages of libraries: a character that cannot be seen, or that would change how
the text around it is shown, is replaced by its escape in Python's notation.

Replaced are control characters (an ESC becomes `\x1b`, a line feed `\n`), format characters
(U+202E, which turns the direction of a line, becomes `\u202e`), line and paragraph separators,
spaces other than U+0020, surrogates, private use, and code points that are not assigned. All other
characters stay, brackets and backslashes too: the result is plain text and has to be shown without
interpreting markup.
"""

import re
import unicodedata
from itertools import accumulate

CHARS_MAX = 4_000
"""Characters of one shown text, escapes included."""
LINES_CHARS_MAX = 100_000
"""Characters of a text of several lines: a long traceback, or the end of a compiler's output."""
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


_NUMBER = re.compile(r"\[Errno -?\d+\] ")


def visible(text: str, *, chars_max: int = CHARS_MAX) -> str:
    """Return the text as one line of printable characters, at most `chars_max` of them.

    A longer text ends with an ellipsis; an escape is never cut in two.
    """
    if len(text) <= chars_max and text.isprintable():
        return text
    # No escape is shorter than its character: what lies behind the bound cannot be shown.
    parts = [char if char.isprintable() else _escaped(char) for char in text[: chars_max + 1]]
    ends = list(accumulate(map(len, parts)))
    if ends[-1] <= chars_max:
        return "".join(parts)
    return "".join(part for part, end in zip(parts, ends, strict=True) if end < chars_max) + (
        ELLIPSIS if chars_max > 0 else ""
    )


def visible_lines(text: str, *, chars_max: int = LINES_CHARS_MAX) -> str:
    """Return a text of several lines, each of which is visible; only line feeds separate lines."""
    return "\n".join(visible(line) for line in text[:chars_max].split("\n"))


def cells(text: str) -> int:
    """Return how many columns of a terminal a visible text takes: a Japanese character takes two.

    The widths are those of Unicode's East Asian Width (UAX #11); combining marks take none.
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.category(char) in ("Mn", "Me") for char in text)


def padded(text: str, width: int) -> str:
    """Return text with spaces behind it, in `width` columns of a terminal or more."""
    return text + " " * (width - cells(text))


def words_of(error: BaseException) -> str:
    """Return what an error says, without the system's number before it; its name if nothing."""
    return _NUMBER.sub("", str(error)) or type(error).__name__


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
