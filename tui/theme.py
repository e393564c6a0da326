"""Theme: the console's own theme, and which one was chosen, kept between runs in a small file."""

from contextlib import suppress
from pathlib import Path

import msgspec
from textual.theme import Theme

from appliance.store.datadir import write_private
from appliance.store.regular_file import read_private

FILE = "console.json"
"""Its name in the data directory."""
HIGH_CONTRAST = Theme(
    name="high-contrast",
    dark=True,
    primary="#ffff00",
    secondary="#00ffff",
    accent="#ffffff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#222222",
    success="#00ff00",
    warning="#ffff00",
    error="#ff4444",
)


class Kept(msgspec.Struct, forbid_unknown_fields=False):
    """What the file holds."""

    theme: str = ""


def read(path: Path) -> str:
    """Return the name of the theme that was chosen; empty: none was, or the file says nothing."""
    with suppress(OSError, ValueError):
        return msgspec.json.decode(read_private(path), type=Kept).theme
    return ""


def write(path: Path, name: str) -> None:
    """Keep the name of a theme.

    Raises:
        OSError: the file cannot be written.
    """
    write_private(path, msgspec.json.encode(Kept(name)) + b"\n")
