"""Palette: every action of every tab, every model and every key, by name (Ctrl+P).

Owns the words of these commands. What they do is what the tab's key does: nothing is done here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.widget import Widget

from appliance.client import verbs
from appliance.core.errors import ServerUnreachable
from tui.connection import Connection
from tui.inert import plain
from tui.screens.keys import Keys
from tui.screens.models import Models
from tui.screens.pane import Pane
from tui.tabs import TABS, Tab

ROWS_MAX = 2_000
"""Models and keys that are named, of each."""
WORD_MIN = 2
"""Letters of a word from which on it is looked for in names."""
NAME_CHARS_MAX = 60
UNDOES = "show_all"
"""The action that undoes a filter, which is nothing to look for."""


class Host(Protocol):
    """What commands need of the console."""

    client: Connection

    def action_tab(self, name: str) -> None:
        """Open a tab."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the palette."""

    title: str
    help: str
    run: Callable[[], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Row:
    """A model or a key."""

    kind: str
    tab: str
    id: str
    name: str


class Commands(Provider):
    """The commands of all tabs."""

    async def startup(self) -> None:
        """Ask the server for the names of models and keys; without them the rest is offered."""
        self._rows: list[Row] = []
        with suppress(ServerUnreachable):
            client = self._host.client
            models, downloads, additions, engines, keys, stats = await asyncio.gather(
                client.do(verbs.LIST_MODELS),
                client.do(verbs.LIST_DOWNLOADS),
                client.do(verbs.LIST_ADDITIONS),
                client.do(verbs.LIST_ENGINES),
                client.do(verbs.LIST_KEYS),
                client.do(verbs.STATS, "60"),
            )
            # The tabs know then what can be done with each row, opened or not.
            base = self.app.screen_stack[0]
            base.query_one(Models).show(models.data, downloads.data, additions.data, engines)
            base.query_one(Keys).show(keys.data, stats)
            live = [key for key in keys.data if key.revoked is None]
            self._rows = [
                *(Row("Model", "models", m.id, _short(m.id)) for m in models.data[:ROWS_MAX]),
                *(Row("Key", "keys", k.id, _short(k.name)) for k in live[:ROWS_MAX]),
            ]

    @property
    def _host(self) -> Host:
        return cast("Host", self.app)

    async def discover(self) -> Hits:
        """Yield every command."""
        for command in self._all():
            shown = Content(command.title)
            yield DiscoveryHit(shown, command.run, text=command.title, help=command.help)

    async def search(self, query: str) -> Hits:
        """Yield the commands whose words are like the query's."""
        matcher = self.matcher(query)
        for command in (*self._all(), *self._with(query)):
            score, found = matcher.fuzzy_search.match(query, command.title)
            if score > 0:
                shown = Content(command.title)  # and no markup: names are those of others
                for at in found:
                    shown = shown.stylize(matcher.match_style, at, at + 1)
                yield Hit(score, shown, command.run, text=command.title, help=command.help)

    def _all(self) -> Iterator[Command]:
        if self.screen is not self.app.screen_stack[0]:
            return  # a dialog has to be answered first
        for tab in TABS:
            yield Command(f"{tab.title}: open", "The tab", partial(self._host.action_tab, tab.name))
            content = self._content(tab)
            for binding in bindings_of(content):
                yield Command(
                    f"{tab.title}: {binding.description}{_about(content, binding)}",
                    _help(binding),
                    partial(self._do, tab, binding),
                )
        for row in self._rows:
            yield Command(f"{row.kind} {row.name}", "Go to its row", partial(self._open, row))

    def _with(self, query: str) -> Iterator[Command]:
        """Yield what can be done with the models and keys that the query names."""
        words = [word for word in query.casefold().split() if len(word) >= WORD_MIN]
        for tab in TABS:
            content = self._content(tab)
            if not isinstance(content, Pane):
                continue
            verbs_ = [each for each in bindings_of(content) if each.action not in content.FREE]
            for row in self._rows:
                if row.tab == tab.name and any(word in row.name.casefold() for word in words):
                    for each in (v for v in verbs_ if content.can(v.action, row.id)):
                        run = partial(self._open, row, each.action)
                        yield Command(f"{each.description} {row.name}", _help(each), run)

    def _content(self, tab: Tab) -> Widget:
        return self.app.screen_stack[0].query_one(tab.kind)

    async def _do(self, tab: Tab, binding: Binding) -> None:
        """Open a tab and do what a key of it does, or say that a row is missing for it."""
        self._host.action_tab(tab.name)
        content = self._content(tab)
        if content.check_action(binding.action, ()) is False:
            said = f"{binding.description} does nothing here now; its key is {_key(binding)}"
            self.app.notify(said)
        else:
            await self.app.run_action(binding.action, content)

    def _open(self, row: Row, then: str = "") -> None:
        """Open a tab with the cursor on a row, and do an action with it."""
        self._host.action_tab(row.tab)
        tab = next(tab for tab in TABS if tab.name == row.tab)
        cast("Pane", self._content(tab)).seek(row.id, then)


def bindings_of(content: Widget) -> Iterator[Binding]:
    """Yield what the keys of a tab do."""
    own = [each for each in type(content).BINDINGS if isinstance(each, Binding)]
    shared = [each for each in Pane.BINDINGS if isinstance(each, Binding)]
    for binding in (*own, *(shared if isinstance(content, Pane) else ())):
        if binding.action != UNDOES:
            yield binding


def _about(content: Widget, binding: Binding) -> str:
    """Return the row that an action is about, with a space before it; empty: about none."""
    if not isinstance(content, Pane) or binding.action in content.FREE:
        return ""
    return f" {_short(content.name_of_row())}".rstrip()


def _help(binding: Binding) -> str:
    return f"{binding.tooltip or binding.description} ({_key(binding)})"


def _key(binding: Binding) -> str:
    return {"slash": "/"}.get(binding.key, binding.key)


def _short(name: str) -> str:
    return plain(name, width=NAME_CHARS_MAX)
