"""Web: the console in a browser of this machine, for terminals that draw badly.

Owns the access control, which textual-serve lacks: only this machine, only with a secret in the
address, and only for pages of its own.
"""

import secrets
import shlex
from collections.abc import Awaitable, Callable, Sequence

import click
from aiohttp import web
from textual_serve.server import Server

HOST = "127.0.0.1"
SECRET_BYTES = 32
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebConsole(Server):
    """A web server for the console of one person."""

    def __init__(self, command: str, port: int) -> None:
        super().__init__(command, host=HOST, port=port, title="gigarouter")
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._origin = f"http://{HOST}:{port}"

    @property
    def address(self) -> str:
        """Return the address to open, secret included."""
        return f"{self._origin}/{self._secret}/"

    async def _make_app(self) -> web.Application:
        # In the path, because a cookie would be sent to every port of this address.
        app = web.Application(middlewares=[self._guarded])
        app.add_subapp(f"/{self._secret}", await super()._make_app())
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests without the secret, and those from pages of other origins."""
        # A foreign name for this address (DNS rebinding), or a page of another origin.
        is_ours = request.host == f"{HOST}:{self.port}"
        if not is_ours or request.headers.get("origin", self._origin) != self._origin:
            return _refused()
        if not request.path.startswith(f"/{self._secret}/"):
            return _refused()
        found = await handler(request)
        if not found.prepared:
            found.headers["content-security-policy"] = self._policy()
            found.headers["referrer-policy"] = "no-referrer"
            found.headers["x-frame-options"] = "DENY"
        return found

    def _policy(self) -> str:
        # The page names a font on the network; nothing may be loaded from there.
        own = "'self' 'unsafe-inline'"
        sockets = f"'self' ws://{HOST}:{self.port}"
        return (
            f"default-src 'none'; script-src {own}; style-src {own}; img-src 'self' data:; "
            f"font-src 'self' data:; connect-src {sockets}; base-uri 'none'; form-action 'none'"
        )

    async def on_startup(self, app: web.Application) -> None:
        """Print the address, just before the server listens."""
        del app
        click.echo(f"the console is at {self.address}\nfor this machine alone; Ctrl-C ends it")

    def initialize_logging(self) -> None:
        """Log nothing: the log would contain what is typed."""


def _refused() -> web.Response:
    return web.Response(status=403, text="Open the address that `gigarouter console --web` says.\n")


def serve(command: Sequence[str], port: int) -> None:
    """Serve the console that a command shows until Ctrl-C.

    Raises:
        click.ClickException: the port is not free.
    """
    try:
        # textual-serve passes the height as ROWS, and Textual reads LINES. `exec` makes the console
        # a child of this process, which is told to end.
        WebConsole(f"LINES=$ROWS exec {shlex.join(command)}", port).serve()
    except OSError as error:
        message = f"cannot listen on {HOST}:{port}: {error.strerror}; choose another --web-port"
        raise click.ClickException(message) from None
