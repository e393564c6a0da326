"""Serve: the process. Granian embedded in our own event loop.

Owns the order of starting and stopping, signals, and the promise that one data directory and one
port have one server.
"""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from appliance import logs
from appliance.compose import Appliance, open_appliance
from appliance.core import failpoint
from appliance.core.address import connectable, in_url
from appliance.core.clock import Clock, SystemClock, iso
from appliance.core.errors import ApplianceError, InvalidSettings, ServerUnreachable
from appliance.core.limits import Limits
from appliance.descriptors import CONNECTIONS_MAX, Descriptors, raise_limit
from appliance.lan import check_certificate, require_deliberate
from appliance.ledger.books import open_books
from appliance.listen_address import resolved
from appliance.port import claimed
from appliance.settings import Settings, injected_variables
from appliance.store.database import WAY_OUT
from appliance.store.datadir import DataDir, ServerNote, pid_namespace
from appliance.store.writer import Writer

log = logging.getLogger("gigarouter.serve")

HEADER_TIMEOUT_MS = 60_000
"""For a request's head; Granian counts the idle time of a kept connection too, so that a shorter
one would reset the connections that clients keep for their next call."""
HEAD_BYTES_MAX = 65_536
"""Bytes of a request's head, above which 431 is answered (of about twice as many where they arrive
at once); also of a piece of a body. Each connection may fill this buffer without a key."""
STOP_SECONDS = 3.0
"""How long Granian may take once no call is in flight: a stalled body holds it for ever."""
CLOSE_SECONDS = 5.0
"""How long models, downloads and threads may take to end, once no call is in flight."""
BOOKS_SECONDS = 2.0
"""How long the books may take to close after that, before the process ends all the same."""
NATIVE_SECONDS = 8.0
"""How long after that the process ends even if native code keeps every Python thread waiting."""
STANDARD_ERROR = 2
BROKEN_SECONDS = 0.5
"""How long calls in flight may take to be told that the books are closed."""
SWITCH_INTERVAL_S = 0.001
"""How soon a thread that waits for the GIL gets it; five times sooner than Python's own."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

GARBAGE_MIN = 10_000
"""New objects between two looks for garbage; a call makes hundreds, and almost none in circles."""


def serve(directory: DataDir, settings: Settings) -> int:
    """Run a server until it is told to stop; return the exit code.

    Raises:
        DataDirBusy: another process owns the data directory.
        InvalidSettings: the port is taken, or the address is open and there is no key.
        StoreFailed: the database cannot be opened.
    """
    if not __debug__:
        raise InvalidSettings("python", "-O", "removes the checks that native code relies on")
    if settings.failpoint:
        _arm(settings.failpoint)
    log_buffer = logs.configure(settings.log_format, own_file=directory.log)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GARBAGE_MIN)
    clock = SystemClock()
    limits = Limits()
    settings = _checked(directory, settings)
    descriptors = raise_limit()
    with (
        directory.locked(),
        claimed(settings.host, settings.port),
        open_books(directory, clock, limits) as books,
    ):
        require_deliberate(settings, has_key=books.keyring.has_live(books.clock.wall_us()))
        check_certificate(directory, settings, clock)
        log.log(logging.WARNING if descriptors.are_few else logging.INFO, "%s", descriptors)
        found = books.recovered
        if found.released or found.refunded:
            log.info(
                "the last run was cut off: released %d holds, refunded %d calls whose answers were "
                "perhaps not delivered",
                found.released,
                found.refunded,
            )

        async def run() -> None:
            async with open_appliance(directory, books, settings, limits, log_buffer) as appliance:
                serving = _Serving(
                    directory, settings, appliance, books.writer, clock, limits, descriptors
                )
                await serving.run()

        uvloop.run(run())
    for number in STOP_SIGNALS:
        # Python ends by itself now, and without handlers of its own.
        signal.signal(number, signal.SIG_IGN)
    return 0


def _checked(directory: DataDir, settings: Settings) -> Settings:
    """Return the settings with a literal address, before anything is opened.

    Raises:
        InvalidSettings: the host cannot be bound, or the data directory is another user's.
    """
    if ignored := injected_variables():
        log.warning("ignored, as set by Kubernetes or Docker: %s", ", ".join(ignored))
    settings = msgspec.structs.replace(settings, host=resolved(settings.host))
    directory.create()
    exposure = directory.exposure()
    if directory.is_of_another_user():
        raise InvalidSettings("settings", "data_dir", f"{directory.path}: {exposure}")
    if exposure:
        log.warning("%s: %s", directory.path, exposure)
    return settings


def _arm(text: str) -> None:
    try:
        failpoint.arm(text)
    except ValueError as error:
        raise InvalidSettings("settings", "failpoint", str(error)) from None


class StopDeadline:
    """Ends the process when stopping takes longer than it may.

    Python waits at its end for threads that compute, try a model file or download, and some of
    them take minutes. Nothing that they do then is worth the wait: what was acknowledged is in the
    books, and the books are closed first.
    """

    def __init__(self, directory: DataDir, writer: Writer) -> None:
        self._directory = directory
        self._writer = writer
        self._timer: threading.Timer | None = None
        self.exit_code = 0
        """Of a process that is ended here with its books closed."""

    def within(self, seconds: float) -> None:
        """End the process so many seconds from now, in the place of what was said before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True  # Python must not wait for it, too
        self._timer.start()
        with suppress(OSError, ValueError):
            # Needs neither a Python thread nor the GIL, for the case that native code keeps both.
            faulthandler.dump_traceback_later(
                seconds + NATIVE_SECONDS, exit=True, file=STANDARD_ERROR
            )

    def _end(self) -> None:
        """Say what runs, close the books and leave; on the timer's thread."""
        running = [each for each in threading.enumerate() if each is not threading.current_thread()]
        names = ", ".join(f"{each.name} (0x{each.ident or 0:016x})" for each in running)
        log.error("stopping took too long, and the process ends now; still running: %s", names)
        with suppress(OSError, ValueError):
            faulthandler.dump_traceback(file=STANDARD_ERROR)
        closing = threading.Thread(target=self._writer.close, daemon=True)
        closing.start()
        closing.join(BOOKS_SECONDS)
        with suppress(OSError):
            self._directory.remove_note()
        os._exit(1 if closing.is_alive() or self._writer.broken.done() else self.exit_code)


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
        descriptors: Descriptors,
    ) -> None:
        self._connections_max = descriptors.connections
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
        self._writer.broken.add_done_callback(self._books_closed)
        server = self._server()
        preloading = asyncio.create_task(self._appliance.preload())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((preloading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not preloading.done():
            log.info("stopping before the first models are loaded")
            self._deadline.within(CLOSE_SECONDS)
            preloading.cancel()
            return
        preloading.result()
        serving = asyncio.create_task(server.serve())
        try:
            await self._announce(serving)
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                raise ServerUnreachable("the HTTP server ended by itself; the log says why.")
        finally:
            with suppress(OSError):  # a disk that went read-only; the drain must follow
                self._directory.remove_note()
            await self._drain(server, serving)

    def _server(self) -> Server:
        settings = self._settings
        secure = bool(settings.tls.cert)
        try:
            return self._granian(settings, secure=secure)
        except OSError as error:  # ssl.SSLError is one
            files = f"{settings.tls.cert}, {settings.tls.key}"
            raise InvalidSettings("settings", "tls", f"{files}: {error}") from None

    def _granian(self, settings: Settings, *, secure: bool) -> Server:
        return Server(
            self._appliance.app,
            address=settings.host,
            port=settings.port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            # Granian counts connections, idle ones too, and accepts none above this, silently.
            backlog=CONNECTIONS_MAX,
            backpressure=self._connections_max,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=HEAD_BYTES_MAX
            ),
            log_enabled=False,
            ssl_cert=Path(settings.tls.cert) if secure else None,
            ssl_key=Path(settings.tls.key) if secure else None,
        )

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
                os.getpid(),
                started,
                connect_url=self._connect_url,
                pid_namespace=pid_namespace(),
            )
        )
        log.info("listening on %s (data in %s)", self._url, self._directory.path)

    def _signalled(
        self, loop: asyncio.AbstractEventLoop, number: int, _frame: FrameType | None
    ) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is ending already
            loop.call_soon_threadsafe(self._told_to_stop, number)

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

    async def _drain(self, server: Server, serving: "asyncio.Task[None]") -> None:
        """Refuse new calls, let those in flight finish, then stop listening."""
        pipeline = self._appliance.pipeline
        pipeline.draining = True
        self._appliance.residency.drain()
        if serving.done():
            self._deadline.exit_code = 1  # it ended by itself
            self._deadline.within(CLOSE_SECONDS)
            return
        log.info("stopping: %d calls in flight", pipeline.in_flight)
        # The listener closes at once; calls in flight go on.
        server.stop()  # type: ignore[no-untyped-call]  # Granian's is not annotated
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_seconds_max):
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
