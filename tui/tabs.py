"""Tabs: the console's tabs, in their order."""

from dataclasses import dataclass

from textual.widget import Widget

from tui.screens.home import Home
from tui.screens.keys import Keys
from tui.screens.lan import Lan
from tui.screens.log import Log
from tui.screens.models import Models


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab."""

    name: str
    title: str
    kind: type[Widget]
    """Of its content."""


TABS = (
    Tab("home", "Throughput", Home),
    Tab("models", "Models", Models),
    Tab("keys", "Keys", Keys),
    Tab("lan", "LAN", Lan),
    Tab("log", "Log", Log),
)
