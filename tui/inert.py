"""Inert: text from elsewhere, so that it can do nothing to the screen.

Owns what becomes of control characters, markup and letters that turn the direction of a line.
"""

from rich.text import Text

from appliance.core.text import visible

SHOWN_MAX = 200
"""Characters of a name that are looked at."""


def inert(text: str, *, style: str = "", width: int | None = None) -> Text:
    """Return text that is drawn as it is: no markup, no escape sequences, no turned direction."""
    return Text(plain(text, width=width), style=style, no_wrap=True, overflow="ellipsis")


def plain(text: str, *, width: int | None = None) -> str:
    """Return the same as a string: what cannot be seen becomes its escape."""
    return visible(text, chars_max=SHOWN_MAX if width is None else width)
