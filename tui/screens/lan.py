"""LAN: the tab that opens the server to the network, and closes it again.

Owns address, port and certificate in `config.toml`, and the warnings about them.
"""

import asyncio
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import tomlkit
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from appliance.core.address import is_loopback
from appliance.core.clock import SystemClock
from appliance.core.errors import ApplianceError, InvalidRequest
from appliance.local_ca import LocalCa, now_utc, own_address, own_names
from appliance.store.audit_log import AuditLog, this_user
from appliance.store.datadir import DataDir, write_private
from tui.connection import Connection
from tui.inert import plain
from tui.screens import checks
from tui.screens.dialogs import Confirm
from tui.screens.form import Field, Form
from tui.screens.qr import Code, qr

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is what the screen is about


class Lan(Widget):
    """The address of the server, and how teammates reach it."""

    can_focus = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "open", "Open to the network"),
        Binding("x", "close", "Back to this machine"),
        Binding("r", "code", "QR code"),
    ]

    class Changed(Message):
        """`config.toml` changed; the server reads it when it starts."""

    def __init__(self, client: Connection, data_dir: Path | None) -> None:
        super().__init__()
        self._client, self._data_dir = client, data_dir
        self._address = ""
        """What teammates use; empty while the server is for this machine alone."""

    def compose(self) -> ComposeResult:
        """Lay out the page."""
        yield Static(id="lan")

    def on_mount(self) -> None:
        """Draw the page before the first poll."""
        self.show(has_key=True)

    def show(self, *, has_key: bool) -> None:
        """Draw address, certificate and warnings; `has_key`: a live key exists."""
        self._has_key = has_key
        url = self._client.url
        is_open = self._is_open()
        before, self._address = self._address, ""
        text = Text()
        text.append("This server is ")
        text.append("open to the network" if is_open else "for this machine alone", style="bold")
        text.append(f" at {url}\n\n")
        address = url if not is_open else _with_host(url, own_address())
        if is_open:
            text.append(f"Teammates use  {address}/v1  and a key each (Keys, m).\n\n", style="bold")
            if not url.startswith("https"):
                text.append(
                    "! Without TLS anyone on this network can read keys and texts.\n\n",
                    style="bold red",
                )
            else:
                text.append(self._trust())
            self._address = f"{address}/v1"
            code = qr(self._address)
            if self._has_room(text, code):
                text.append_text(code)
            else:
                text.append("r shows the QR code of the address.\n")
        else:
            text.append("o opens it: choose an address, with TLS or without.\n")
            if not has_key:
                text.append(
                    "! The server refuses to open without a key: mint one first.\n", style="bold"
                )
        if self._data_dir is None:
            text.append("\nThis console is attached to a remote server: change it over there.")
        self.query_one("#lan", Static).update(text)
        if bool(before) != bool(self._address):
            self.refresh_bindings()

    def _has_room(self, text: Text, code: Text) -> bool:
        """Say whether a code stands below a text without being cut."""
        width, height = self.content_size
        if not width:
            return False
        lines = [max(1, -(-len(line) // width)) for line in text.plain.splitlines()]
        below = 2 if self._data_dir is None else 0
        return sum(lines) + len(code.plain.splitlines()) + below <= height

    def action_code(self) -> None:
        """Show the QR code of the address alone."""
        if self._address:
            self.app.push_screen(Code(self._address))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to close, and the code, only where the server is open."""
        del parameters
        return bool(self._address) if action in ("code", "close") else True

    def _trust(self) -> str:
        """Say what teammates' clients have to trust; nothing for a certificate of somebody else."""
        if self._data_dir is None:
            return ""
        authority, now = LocalCa(self._data_dir / "tls"), now_utc(SystemClock().wall_us())
        ca, cert = authority.show(authority.ca, now), authority.show(authority.cert, now)
        if ca is None or cert is None or not cert.is_ours:
            return "Teammates' clients must trust the certificate, or they refuse it.\n\n"
        return (
            f"Teammates' clients trust {ca.path} once (gigarouter tls ca prints it).\n"
            f"Its SHA-256  {ca.fingerprint}\n"
            f"The server's {cert.fingerprint}, until {cert.expires}\n\n"
        )

    def _is_open(self) -> bool:
        host = address_of(self._client.url)[0]
        return bool(host) and not is_loopback(host)

    @work(group="lan")
    async def action_open(self) -> None:
        """Ask for address, port and certificate, and write them."""
        if self._data_dir is None or not self._has_key:
            self.notify(
                "Mint a key first" if self._data_dir else "Change it over there", severity="error"
            )
            return
        host, port = address_of(self._client.url)
        fields = [
            Field("host", "Address to bind", host if self._is_open() else EVERYWHERE),
            Field("port", "Port", port, check=checks.port),
            Field("tls", "TLS: new, none or CERT,KEY", self._tls_in_use(), check=checks.required),
        ]
        form = Form("Open to the network", fields, self._open, done="Open")
        if await self.app.push_screen_wait(form):
            self.post_message(self.Changed())

    async def _open(self, given: Mapping[str, str]) -> bool:
        """Write what the form holds.

        Raises:
            InvalidRequest: something of it cannot be; `param` names the field.
        """
        if given["tls"] == "none" and not await self.app.push_screen_wait(
            Confirm(
                "Without TLS anyone on this network can read keys. Open all the same?", yes="Open"
            )
        ):
            raise InvalidRequest("none is what you did not want: new makes one", param="tls")
        try:
            cert, key = await asyncio.to_thread(self._certificate, given["tls"])
        except (OSError, ValueError, ApplianceError) as error:
            raise InvalidRequest(str(error), param="tls") from None
        try:
            self._write(given["host"], given["port"], cert, key)
        except (OSError, ValueError) as error:
            raise InvalidRequest(str(error)) from None
        return True

    def _tls_in_use(self) -> str:
        """Return what the form begins with: what an open server uses, or a new certificate."""
        if not self._is_open() or self._data_dir is None:
            return "new"
        if not self._client.url.startswith("https"):
            return "none"
        return tls_of(self._data_dir) or "new"

    @work(group="lan")
    async def action_close(self) -> None:
        """Write the loopback address, without a certificate."""
        if self._data_dir is None or not self._is_open():
            return
        asked = Confirm(
            "The server starts again, and only this machine reaches it then. Close it?",
            yes="Close it",
        )
        if not await self.app.push_screen_wait(asked):
            return
        try:
            self._write(LOOPBACK, address_of(self._client.url)[1], "", "")
        except (OSError, ValueError) as error:
            self.notify(plain(str(error)), severity="error", timeout=10)
        else:
            self.post_message(self.Changed())

    def _write(self, host: str, port: str, cert: str, key: str) -> None:
        """Write the settings.

        Raises:
            OSError: the file cannot be read or written.
            ValueError: the file is not TOML.
        """
        assert self._data_dir is not None
        write(self._data_dir, host=host, port=int(port), cert=cert, key=key)
        AuditLog(DataDir(self._data_dir).audit_log, SystemClock()).note(
            who=this_user("console"),
            what="lan_close" if is_loopback(host) else "lan_open",
            outcome="done",
            order={"host": host, "port": int(port), "tls": bool(cert)},
        )

    def _certificate(self, wanted: str) -> tuple[str, str]:
        if wanted == "none":
            return "", ""
        if wanted != "new":
            cert, _, key = wanted.partition(",")
            for path in (cert, key):
                if not Path(path.strip()).is_file():
                    raise ValueError(f"there is no file {path.strip()!r}")
            return cert.strip(), key.strip()
        assert self._data_dir is not None
        authority = LocalCa(self._data_dir / "tls")
        authority.make(own_names(), now_utc(SystemClock().wall_us()))
        return str(authority.cert), str(authority.key)


def address_of(url: str) -> tuple[str, str]:
    """Return host and port of a URL; both are empty where there is none."""
    host, _, port = url.partition("://")[2].rpartition(":")
    return host.strip("[]"), port


def tls_of(data_dir: Path) -> str:
    """Return certificate and key of `config.toml`, with a comma between; empty: it names none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        tls = tomllib.loads((data_dir / "config.toml").read_text("utf-8"))["tls"]
        if tls["cert"] and tls["key"]:
            return f"{tls['cert']},{tls['key']}"
    return ""


def write(data_dir: Path, *, host: str, port: int, cert: str, key: str) -> None:
    """Write address, port and certificate into `config.toml`, and keep the rest of the file.

    Whoever opens the server here was asked, so that the settings which say so are written too.
    """
    path = data_dir / "config.toml"
    document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
    document["host"] = host
    document["port"] = port
    is_open = not is_loopback(host)
    for name, value in (("lan", is_open), ("insecure_http", is_open and not cert)):
        if value:
            document[name] = True
        else:
            document.pop(name, None)
    if cert or "tls" in document:
        document["tls"] = {"cert": cert, "key": key}
    write_private(path, tomlkit.dumps(document).encode())


def _with_host(url: str, host: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{host}:{rest.rpartition(':')[2]}"
