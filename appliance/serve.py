"""Serve: the process. Granian embedded in our own event loop.

Owns the order of starting and stopping, signals, and the promise that one data directory and one
port have one server.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

import uvloop

from appliance import last_words, logs
from appliance.compose import Appliance, open_appliance
from appliance.core import failpoint
from appliance.core.address import connectable, in_url
from appliance.core.clock import Clock, SystemClock, iso
from appliance.core.errors import ApplianceError, InvalidSettings, ServerUnreachable
from appliance.core.limits import Limits
from appliance.core.process_end import end_of
from appliance.core.version import program_version
from appliance.descriptors import Descriptors, raise_limit
from appliance.http_server import HttpServer, http_server
from appliance.lan import check_certificate, require_deliberate
from appliance.ledger.books import Books, open_books
from appliance.listener import listen
from appliance.machine import memory_bytes
from appliance.port import claimed
from appliance.scheduler.heartbeat import Heartbeat
from appliance.settings import Settings
from appliance.start import checked
from appliance.stop_deadline import StopDeadline
from appliance.store.database import WAY_OUT
from appliance.store.datadir import DataDir, ServerNote, pid_namespace
from appliance.store.writer import Writer
from appliance.supervised import ALIVE, LISTENS, WELL, Supervised

log = logging.getLogger("gigarouter.serve")

STOP_SECONDS = 3.0
"""How long Granian may take once no call is in flight: a stalled body holds it for ever."""
CLOSE_SECONDS = 5.0
"""How long models, downloads and threads may take to end, once no call is in flight."""
LINGER_SECONDS = 1.0
"""How long connections that are kept stay open when the drain begins: a request that is on its way
on one of them is answered, and told that the connection ends, instead of being cut."""
LINGER_LOOKS = 20
"""How often it is looked meanwhile whether any is left."""
BROKEN_SECONDS = 0.5
"""How long calls in flight may take to be told that the books are closed."""
SWITCH_INTERVAL_S = 0.001
"""How soon a thread that waits for the GIL gets it; five times sooner than Python's own."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

GARBAGE_MIN = 10_000
"""New objects between two looks for garbage; a call makes hundreds, and almost none in circles."""


def serve(directory: DataDir, settings: Settings, supervised: Supervised | None = None) -> int:
    """Run a server until it is told to stop; return the exit code.

    With `supervised`, the lock of the data directory and the listening socket are inherited.

    Raises:
        DataDirBusy: another process owns the data directory.
        InvalidSettings: the port is taken, or the address is open and there is no key.
        StoreFailed: the database cannot be opened.
    """
    if settings.failpoint:
        _arm(settings.failpoint)
    log_buffer = logs.configure(settings.log_format, own_file=directory.log)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GARBAGE_MIN)
    gc.freeze()  # what was imported stays: nobody looks through it again
    gc.enable()
    clock = SystemClock()
    limits = Limits.of_machine(memory_bytes())
    if supervised is None:  # a supervisor has checked, and warned, already
        settings = checked(directory, settings)
    descriptors = raise_limit()
    with (
        _listening(directory, settings, supervised) as listener,
        open_books(directory, clock, limits) as books,
    ):
        _log_recovery(books)
        stacks = last_words_of(directory)
        require_deliberate(settings, has_key=books.keyring.has_live(books.clock.wall_us()))
        check_certificate(directory, settings, clock)
        log.log(logging.WARNING if descriptors.are_few else logging.INFO, "%s", descriptors)

        async def run() -> None:
            async with open_appliance(
                directory, books, settings, limits, log_buffer, stacks
            ) as appliance:
                serving = _Serving(
                    directory,
                    settings,
                    appliance,
                    books.writer,
                    clock,
                    limits,
                    descriptors=descriptors,
                    listener=listener,
                    supervised=supervised,
                )
                await serving.run()

        uvloop.run(run())
    for number in STOP_SIGNALS:
        # Python ends by itself now, and without handlers of its own.
        signal.signal(number, signal.SIG_IGN)
    return 0


def _log_recovery(books: Books) -> None:
    found = books.recovered
    if found.refunded:
        log.info(
            "the last run was cut off: refunded %d calls whose answers were perhaps not delivered",
            found.refunded,
        )


@contextmanager
def _listening(
    directory: DataDir, settings: Settings, supervised: Supervised | None
) -> Iterator[socket.socket]:
    """Yield the socket of the port, with the data directory locked for this process."""
    if supervised is not None:
        with supervised.listener:
            yield supervised.listener
        return
    with (
        directory.locked(),
        claimed(settings.host, settings.port),
        listen(settings.host, settings.port) as listener,
    ):
        yield listener


def last_words_of(directory: DataDir) -> list[str]:
    """Return, and log, what the process before wrote when native code ended it."""
    lines = last_words.take(directory.last_words)
    for line in lines:
        log.error("the last server's end: %s", line)
    return lines


def _arm(text: str) -> None:
    try:
        failpoint.arm(text)
    except ValueError as error:
        raise InvalidSettings("settings", "failpoint", str(error)) from None


def _nothing(_: object) -> None:
    """Change nothing in the books."""


class _Serving:
    """One run of the server."""

    def __init__(
        self,
        directory: DataDir,
        settings: Settings,
        appliance: Appliance,
        writer: Writer,
        clock: Clock,
        limits: Limits,
        *,
        descriptors: Descriptors,
        listener: socket.socket,
        supervised: Supervised | None,
    ) -> None:
        self._connections_max = descriptors.connections
        self._listener = listener
        self._supervised = supervised
        self._directory = directory
        self._settings = settings
        self._appliance = appliance
        self._writer = writer
        self._clock = clock
        self._limits = limits
        self._stop = asyncio.Event()
        self._was_asked = False
        """SIGTERM or Ctrl-C came."""
        self._deadline = StopDeadline(directory, writer)
        scheme = "https" if settings.tls.cert else "http"
        self._url = f"{scheme}://{in_url(settings.host)}:{settings.port}"
        self._connect_url = f"{scheme}://{in_url(connectable(settings.host))}:{settings.port}"

    async def run(self) -> None:
        """Load, listen, and stop when told to."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup: a closed terminal is no reason
                # Python's own handler: a loop that is closed leaves the system's in place of its
                # own, and that ends the process before the books are closed.
                signal.signal(number, partial(self._signalled, loop))
        if self._supervised is not None:
            if self._supervised.before:
                ended = end_of(self._supervised.before)
                log.warning("the server before this one %s", ended)
                self._appliance.meters.before = ended
            self._supervised.attend(partial(self._hears, loop))
        self._writer.broken.add_done_callback(self._books_closed)
        server = http_server(
            self._appliance.app,
            self._settings,
            self._listener,
            connections_max=self._connections_max,
        )
        serving = asyncio.create_task(server.serve())
        stopping = asyncio.create_task(self._stop.wait())
        # The port is open meanwhile: calls to these models wait for them like any others.
        preloading = asyncio.create_task(self._appliance.preload())
        beating = asyncio.create_task(self._heartbeat())
        try:
            await self._announce(serving)
            await self._until_told(serving, stopping, preloading)
        finally:
            preloading.cancel()
            beating.cancel()
            with suppress(OSError):  # a disk that went read-only; the drain must follow
                self._directory.remove_note()
            await self._drain(server, serving)

    async def _heartbeat(self) -> None:
        """Tell the supervisor, if there is one, that this process lives and computes."""
        if self._supervised is None:
            return
        pool = self._appliance.residency.pool
        await Heartbeat(
            lambda: [e.engine for e in pool.entries.values() if e.engine and e.is_usable],
            partial(self._writer.run, _nothing, durable=False),
            alive=partial(self._supervised.say, ALIVE),
            well=partial(self._supervised.say, WELL),
        ).run()

    async def _until_told(
        self,
        serving: "asyncio.Task[None]",
        stopping: "asyncio.Task[bool]",
        preloading: "asyncio.Task[None]",
    ) -> None:
        await asyncio.wait((serving, stopping, preloading), return_when=asyncio.FIRST_COMPLETED)
        if preloading.done():
            preloading.result()
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
            raise ServerUnreachable("the HTTP server ended by itself; the log says why.")

    async def _announce(self, serving: "asyncio.Task[None]") -> None:
        """Tell people and commands where we listen, once we do."""
        host = connectable(self._settings.host)
        for _ in range(200):
            if serving.done():
                return
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, self._settings.port)
                writer.close()
                break
            await asyncio.sleep(0.02)
        started = iso(self._clock.wall_us()) or ""
        self._directory.write_note(
            ServerNote(
                self._url,
                os.getpid() if self._supervised is None else self._supervised.supervisor,
                started,
                connect_url=self._connect_url,
                version=program_version(),
                pid_namespace=pid_namespace(),
            )
        )
        if self._supervised is not None:
            self._supervised.say(LISTENS)
        log.info("listening on %s (data in %s)", self._url, self._directory.path)

    def _hears(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        """Take what the supervisor says; on the thread that listens to it."""
        with suppress(RuntimeError):  # the loop is closed: the process is ending already
            loop.call_soon_threadsafe(self._told_to_stop, number)

    def _signalled(
        self, loop: asyncio.AbstractEventLoop, number: int, _frame: FrameType | None
    ) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is ending already
            # systemd sends its signal to the supervisor and to us, and the supervisor passes it
            # on: that is one order. Of a second one it tells us, too.
            is_order = self._supervised is None
            loop.call_soon_threadsafe(self._told_to_stop, number if is_order else signal.SIGHUP)

    def _told_to_stop(self, number: int) -> None:
        # A terminal that closes sends SIGHUP more than once, and systemd adds one to its SIGTERM.
        if number != signal.SIGHUP:
            if self._was_asked:
                log.warning("told to stop twice: stopping without waiting")
                os._exit(1)
            self._was_asked = True
        if not self._stop.is_set():
            self._deadline.within(
                self._limits.drain_seconds_max + STOP_SECONDS + CLOSE_SECONDS,
            )
            self._stop.set()

    def _books_closed(self, broken: "Future[str]") -> None:
        """Stop at once, on the writer's thread: nothing can be acknowledged any more."""
        # Closing in good order could wait for ever for such a disk.
        threading.Timer(BROKEN_SECONDS, os._exit, (1,)).start()
        self._appliance.residency.stop_watching()
        log.critical(
            "%s: %s. The books are closed and the server stops. Check the disk and start it again; "
            "if it refuses, %s",
            self._directory.database,
            broken.result(),
            WAY_OUT,
        )
        with suppress(OSError):
            self._directory.remove_note()

    async def _drain(self, server: HttpServer, serving: "asyncio.Task[None]") -> None:
        """Refuse new calls, let those in flight finish, then stop listening."""
        pipeline = self._appliance.pipeline
        pipeline.draining = True
        self._appliance.residency.drain()
        if serving.done():
            self._deadline.exit_code = 1  # it ended by itself
            self._deadline.within(CLOSE_SECONDS)
            return
        log.info("stopping: %d calls in flight", pipeline.in_flight)
        self._listener.close()
        until_s = asyncio.get_running_loop().time() + self._limits.drain_seconds_max
        await self._linger()
        # It accepts no more, and ends connections that are idle; calls in flight go on.
        server.stop()  # type: ignore[no-untyped-call]  # Granian's is not annotated
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await pipeline.idle()
        done, _ = await asyncio.wait((serving,), timeout=STOP_SECONDS)
        self._deadline.within(CLOSE_SECONDS)
        if not done:
            log.warning("connections that never finish are cut")
            # Granian's own end comes later, and finds its task gone: that is no news for the log.
            asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        else:
            with suppress(ApplianceError):
                serving.exception()

    async def _linger(self) -> None:
        for _ in range(LINGER_LOOKS):
            if not self._appliance.connections.are_open():
                return
            await asyncio.sleep(LINGER_SECONDS / LINGER_LOOKS)
