"""App: the console: its tabs, the polls that keep them up to date, and the server's life cycle.

Owns polling, the status line, and the questions before a server is stopped.
"""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult, ScreenStackError
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.widgets import Footer, Label, TabbedContent, TabPane, Tabs

from appliance.client import verbs
from appliance.client.errors import DidNotStop, ServerLost
from appliance.client.local_server import LocalServer
from appliance.core.clock import SystemClock
from appliance.core.errors import ServerUnreachable
from appliance.store.datadir import ServerNote
from appliance.wire.stats import Stats
from tui import figures, tabs
from tui.base import BaseApp
from tui.connection import Caller, Connection
from tui.inert import plain
from tui.palette import Commands
from tui.restart import age_of, restarted
from tui.screens.dialogs import Confirm
from tui.screens.ended import Ended
from tui.screens.home import Home
from tui.screens.keys import Keys
from tui.screens.lan import Lan
from tui.screens.log import Log
from tui.screens.models import Models
from tui.screens.pane import TALL_FROM, WIDE_FROM
from tui.screens.questions import STOP, leaving, stopping
from tui.screens.welcome import Welcome

CLOCK = SystemClock()
POLL_S = 0.5
"""Seconds between two polls; one costs the server far less than a call."""
COUNT_EVERY = 20
"""Polls between two looks at what each key ever spent."""
END_SHOWN_S = 20.0
"""Seconds that a notification about the end of a server is shown."""
STARTER = "all-minilm-l6-v2"
FOCUSED = ("Home", "DataTable", "Lan", "Scrollback")
"""Widgets that have the keyboard focus when their tab is opened."""
TABS = tuple(tab.name for tab in tabs.TABS)


class Console(BaseApp):
    """The console of one server."""

    TITLE = "gigarouter"
    CSS_PATH = "console.tcss"
    COMMANDS = BaseApp.COMMANDS | {Commands}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(n), f"tab('{tab.name}')", tab.title, show=False)
            for n, tab in enumerate(tabs.TABS, 1)
        ),
        Binding("question_mark", "help", "Help", tooltip="Every key of what is in focus"),
        Binding("s", "start", "Start the server"),
        Binding("q", "leave", "Quit"),
    ]

    def __init__(
        self, *, server: LocalServer | None, caller: Caller | None = None, kept: Path | None = None
    ) -> None:
        """Prepare; `kept`: the file that keeps the theme between runs."""
        super().__init__(kept)
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE_FROM, "-wide"), (180, "-wider")]
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL_FROM, "-tall")]
        self.server = server
        self.client = Connection(caller)
        self._span_s = 60
        self._stats: Stats | None = None
        self._welcomed = False
        self._looking = False
        self._checked = False
        self._lost = False
        self._is_dead = False
        """No process owns the data directory, so that waiting does not help."""
        self._end = ""
        """How the last server of this console ended."""
        self._answered_ns: int | None = None
        self._polls_uncounted = 0
        self._is_changing = False
        self._is_restarting = False
        """The console ended the server to start it again, and has not heard of it since."""
        self._asks_hub = False
        self._starter_pid = os.getppid()

    def compose(self) -> ComposeResult:
        """Lay out the status line above the tabs."""
        yield Label("starting\u2026", id="status")
        yield Ended()
        with TabbedContent(initial="tab-home", id="tabs"):
            with TabPane("1 Throughput", id="tab-home"):
                yield Home()
            with TabPane("2 Models", id="tab-models"):
                yield Models(self.client)
            with TabPane("3 Keys", id="tab-keys"):
                yield Keys(self.client, STARTER)
            with TabPane("4 LAN", id="tab-lan"):
                yield Lan(self.client, self.server.data_dir if self.server else None)
            with TabPane("5 Log", id="tab-log"):
                yield Log()
        yield Label("", id="small", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Find or start the server, and start to poll."""
        self.query_one(Tabs).can_focus = False  # it would take the keys, and has none to offer
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        if self.server is not None:
            self._connect()
        self.set_interval(POLL_S, self._look)

    @work(exclusive=True, group="server")
    async def _connect(self) -> None:
        assert self.server is not None
        self._is_changing = True
        try:
            note = self.server.note()
            if note is None:
                again = "restarting the server, with its new settings\u2026"
                first = "starting the server: the first time it measures this machine\u2026"
                self._say(again if self._is_restarting else first)
                note = await self.server.start()
            await self.client.use(self.server.caller(note))
            self._stats = None  # of a server that somebody wanted ended
        except ServerUnreachable as error:
            self._say(f"the server did not start: {plain(str(error))}", lost=True)
            self._died("the server did not start")
            return
        finally:
            self._is_changing = self._is_restarting = False
        self._look()

    # -- polls ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Poll, unless the last poll still runs: polls of a slow server do not pile up."""
        if os.getppid() != self._starter_pid:
            self.exit()  # the process that started the console is gone, and its terminal with it
        end = self.server.unexpected_end() if self.server else None
        if end is not None and self.server is not None and not self._is_restarting:
            self._end = end
            if self._is_dead:  # its lock is free a moment before how it ended is known
                self._base(Ended).show(end, self.server.tail())
        if not self._looking and not self._is_changing:
            self._looking = True
            self._look_once()

    @work(group="look")
    async def _look_once(self) -> None:
        try:
            if not self.client.is_open:
                await self._follow()
                return
            stats = await self.client.do(verbs.STATS, str(self._span_s))
            if said := restarted(self._stats, stats):
                self.notify(said, severity="warning", timeout=END_SHOWN_S)
            self._stats = stats
            self._answered()
            active = self._base(TabbedContent).active
            await self._look_at(active.removeprefix("tab-"))
        except ServerLost as error:
            with suppress(NoMatches, ScreenStackError):  # the console is closing
                await self._gone(str(error))
        except ServerUnreachable as error:
            self._say(f"refused: {plain(str(error))}", lost=True)
        except (NoMatches, ScreenStackError):
            pass  # the same
        except (ArithmeticError, LookupError, ValueError) as error:
            # Of the right types, and without sense: no amount, an empty unit, a number beyond all.
            self._say(f"the server's answer cannot be shown: {plain(repr(error))}", lost=True)
        finally:
            self._looking = False

    async def _look_at(self, tab: str) -> None:
        assert self._stats is not None
        self._greet(self._stats)
        if tab == "home":
            self._base(Home).show(self._stats)
        elif tab == "models":
            models, downloads, additions, engines = await asyncio.gather(
                self.client.do(verbs.LIST_MODELS),
                self.client.do(verbs.LIST_DOWNLOADS),
                self.client.do(verbs.LIST_ADDITIONS),
                self.client.do(verbs.LIST_ENGINES),
            )
            self._base(Models).show(models.data, downloads.data, additions.data, engines)
        elif tab == "log":
            log = self._base(Log)
            log.show(await self.client.do(verbs.LOG, log.cursor))
            if not self._checked:
                self._checked = True
                self._check()
        else:
            keys = (await self.client.do(verbs.LIST_KEYS)).data
            self._base(Keys).show(keys, self._stats)
            if tab == "keys":
                await self._count_spent()
            self._base(Lan).show(has_key=any(key.revoked is None for key in keys))
        if not self._welcomed:
            await self._welcome()

    async def _count_spent(self) -> None:
        """Ask now and then what each key ever spent: the books of years are read for it."""
        if self._polls_uncounted % COUNT_EVERY == 0:
            self._base(Keys).count(await self.client.do(verbs.USAGE, "key", "all", "all", "all"))
        self._polls_uncounted += 1

    @work(exclusive=True, group="check")
    async def _check(self) -> None:
        """Ask for the health check, which may take longer than a poll and does not hold it up."""
        try:
            report = await self.client.do(verbs.DOCTOR, "true" if self._asks_hub else "false")
            self._asks_hub = False
            self._base(Log).check(report)
        except ServerUnreachable:
            self._checked = False  # the next poll says why
        except (NoMatches, ScreenStackError):
            pass  # the console is closing

    async def _welcome(self) -> None:
        keys = await self.client.do(verbs.LIST_KEYS)
        self._welcomed = True
        if not keys.data:
            models, engines = await asyncio.gather(
                self.client.do(verbs.LIST_MODELS), self.client.do(verbs.LIST_ENGINES)
            )
            self.push_screen(Welcome(self.client, models.data, engines))

    def _greet(self, stats: Stats) -> None:
        self._say(
            f"{self.client.url}   {plain(stats.version)}   "
            f"up {figures.duration(stats.uptime_s)}   "
            f"{figures.number(stats.calls_per_s)} calls/s   {figures.size(stats.process_bytes)}"
        )

    async def _gone(self, reason: str) -> None:
        """Show why the server does not answer, and connect again if its address changed."""
        if self._is_restarting:
            await self._follow()
            return
        server = self.server
        if server is not None and server.is_gone():
            self._say(f"no server runs: s starts one   {self._age()}", lost=True)
            self._died(self._end or f"the server at {self.client.url} is gone: no process is left")
        else:
            self._say(f"{plain(reason)} (trying again)   {self._age()}", lost=True)
        if not self._lost:
            log = self._base(Log)
            log.lost(reason)
            if server is not None:
                log.show_file(server.tail())
        self._lost = True
        self._base(TabbedContent).add_class("stale")
        await self._follow()

    def _age(self) -> str:
        return age_of(self._answered_ns, CLOCK.monotonic_ns())

    def _died(self, how: str) -> None:
        """Offer to start a server, once; what the last one wrote stands beside the offer."""
        if self.server is not None and not self._is_dead:
            self._base(Ended).show(how, self.server.tail())
            self._is_dead = True
            self.refresh_bindings()

    def _answered(self) -> None:
        """Take note that the server answers."""
        self._answered_ns = CLOCK.monotonic_ns()
        if self._lost or self._is_dead:
            self._lost = self._is_dead = self._checked = False
            self._end = ""
            self._base(TabbedContent).remove_class("stale")
            self._base(Ended).hide()
            self.refresh_bindings()

    async def _follow(self) -> None:
        """Connect to the server that owns the data directory now, if its address is another one."""
        note = self.server.note() if self.server else None
        if note is not None and self.server is not None and note.url != self.client.url:
            with suppress(ServerUnreachable):
                await self.client.use(self.server.caller(note))

    async def on_unmount(self) -> None:
        """Close the connections to the server."""
        await self.client.close()

    # -- actions -------------------------------------------------------------------------------

    @on(TabbedContent.TabActivated)
    def tab_changed(self) -> None:
        """Poll at once for the tab that was opened, and give its content the keys."""
        self._focus_inside()
        self._polls_uncounted = 0
        self._checked = False
        self._look()

    @on(Home.SpanChanged)
    def span_changed(self, event: Home.SpanChanged) -> None:
        """Poll at once for the history of another span."""
        self._span_s = event.span_s
        self._look()

    @on(Log.CheckWanted)
    def check_again(self) -> None:
        """Run the health check with the next poll; who asks for it has the hub asked, too."""
        self._asks_hub = True
        self._checked = False

    @on(Lan.Changed)
    @work(exclusive=True, group="server")
    async def address_changed(self) -> None:
        """Restart the server, so that it reads its settings again."""
        server = self.server
        if server is None:
            return
        foreign = None if server.is_ours() else server.note()
        if foreign is not None and not await self.push_screen_wait(
            stopping(server.description(foreign))
        ):
            self.notify("The settings are written; the server follows them when it starts again")
            return
        self._is_restarting = True
        self._say("restarting the server: it finishes its calls first\u2026")
        try:
            await self._stop(server, foreign)
        except DidNotStop as error:
            self._is_restarting = False
            self.notify(error.message, severity="error", timeout=END_SHOWN_S)
            return
        self._connect()

    async def _stop(self, server: LocalServer, foreign: ServerNote | None = None) -> None:
        self._is_changing = True
        try:
            await server.stop(foreign)
        finally:
            self._is_changing = False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to start a server only where none runs."""
        del parameters
        return self._is_dead if action == "start" else True

    def action_start(self) -> None:
        """Start a server in place of the one that is gone."""
        if self._is_dead and not self._is_changing:
            self._connect()

    async def action_quit(self) -> None:
        """Quit as `q` does, whatever key or menu it was asked for with."""
        self.action_leave()

    def action_tab(self, name: str) -> None:
        """Open a tab."""
        self.query_one(TabbedContent).active = f"tab-{name}"
        self._focus_inside()

    def _focus_inside(self) -> None:
        """Focus the content of the open tab, and not the row of tabs."""
        tab = self._base(TabbedContent).active
        inside = self.query(", ".join(f"#{tab} {kind}" for kind in FOCUSED))
        if inside:
            # At once: keys that are typed ahead belong to the tab.
            self.screen_stack[0].set_focus(inside.first())

    @work(group="leave")
    async def action_leave(self) -> None:
        """Quit, after asking whether a server that this console started keeps running."""
        server = self.server
        if server is not None and server.is_ours():
            answer = await self.push_screen_wait(leaving())
            if answer is None or (answer == STOP and not await self._stopped(server)):
                return
        self.exit()

    async def _stopped(self, server: LocalServer) -> bool:
        """Stop the server; return whether the console may end."""
        self._say("stopping the server\u2026")
        try:
            await self._stop(server)
        except DidNotStop as error:
            question = f"{error.message} Quit the console all the same?"
            return await self.push_screen_wait(Confirm(question, yes="Quit", no="Stay"))
        return True
