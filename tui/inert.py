"""Inert: text from elsewhere, so that it can do nothing to the screen.

Owns what becomes of control characters, markup and letters that turn the direction of a line.
"""

import unicodedata

from rich.text import Text

SHOWN_MAX = 200
"""Characters of a name that are looked at."""


def inert(text: str, *, style: str = "", width: int | None = None) -> Text:
    """Return text that is drawn as it is: no markup, no escape sequences, no turned direction."""
    return Text(plain(text, width=width), style=style, no_wrap=True, overflow="ellipsis")


def plain(text: str, *, width: int | None = None) -> str:
    """Return the same as a string: what cannot be seen, or turns lines, becomes a dot."""
    longest = SHOWN_MAX if width is None else width
    shown = "".join(
        "\u00b7" if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} else letter
        for letter in text[:longest]
    )
    return shown if len(text) <= longest else shown[: max(0, longest - 1)] + "\u2026"
