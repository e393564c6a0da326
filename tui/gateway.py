"""Gateway: the one door to a server, which may be gone.

Owns addresses, the admin token and what errors mean. Screens know its methods and the wire's types,
nothing of HTTP.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from appliance.core.clock import SystemClock
from appliance.wire.doctor import Report
from appliance.wire.downloads import (
    CheckView,
    DownloadList,
    DownloadView,
    HubModelOrder,
    RemovedView,
)
from appliance.wire.engines import EngineList, EngineView, PinOrder
from appliance.wire.keys import (
    KeyList,
    KeyView,
    MintedKey,
    MintOrder,
    RotatedKey,
    RotateOrder,
    TopUpOrder,
)
from appliance.wire.logs import LogView
from appliance.wire.models import AliasOrder, ModelList, ModelOrder, ModelView, PriceOrder
from appliance.wire.stats import Stats
from appliance.wire.usage import UsageReport

T = TypeVar("T")
CLOCK = SystemClock()

ANSWER_S = 620.0
"""Loading a large model is an answer too."""
CONNECT_S = 3.0
REFUSED = 400


class Lost(Exception):
    """The server does not answer; it may come back."""


class Refused(Exception):
    """The server said no; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a call with a key's own plaintext gave."""

    status: int
    body: dict[str, Any]
    cost: str
    balance: str
    ms: float


class Gateway(Protocol):
    """What screens ask of a server; a test has its own."""

    url: str

    async def close(self) -> None:
        """Let go of the connections."""
        ...

    async def get(self, path: str, kind: type[T]) -> T:
        """Return what is at a path of the admin API."""
        ...

    async def send(self, method: str, path: str, kind: type[T], order: object = None) -> T:
        """Send an order to the admin API and return its answer."""
        ...

    async def call(self, key: str, path: str, body: dict[str, Any]) -> Tried:
        """Make a paid call, as a client would."""
        ...


class NoServer:
    """Stands where a gateway will be, and says that nobody is there."""

    url = "no server yet"

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    async def get(self, path: str, kind: type[T]) -> T:
        """Refuse."""
        raise Lost(f"nobody to ask for {kind.__name__} at {path}: the server is starting")

    async def send(self, method: str, path: str, kind: type[T], order: object = None) -> T:
        """Refuse."""
        del method, order
        return await self.get(path, kind)

    async def call(self, key: str, path: str, body: dict[str, Any]) -> Tried:
        """Refuse."""
        del key, body
        return await self.get(path, Tried)


class HttpGateway:
    """A server over HTTP."""

    def __init__(self, url: str, token: str, *, is_local: bool = True) -> None:
        self.url = url
        # A proxy of the environment must not see the token. A server of this machine may have a
        # certificate that only its teammates trust; elsewhere one must be good.
        self._client = httpx2.AsyncClient(
            base_url=url,
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=False,
            verify=not is_local,
        )
        self._headers = {"authorization": f"Bearer {token}"}

    def __repr__(self) -> str:
        """Name the server, and not the token."""
        return f"<HttpGateway {self.url}>"

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def get(self, path: str, kind: type[T]) -> T:
        """Return what is at a path of the admin API.

        Raises:
            Lost: nobody answers.
            Refused: it says no.
        """
        return await self.send("GET", path, kind)

    async def send(self, method: str, path: str, kind: type[T], order: object = None) -> T:
        """Send an order to the admin API and return its answer.

        Raises:
            Lost: nobody answers.
            Refused: it says no.
        """
        content = None if order is None else msgspec.json.encode(order)
        try:
            answer = await self._client.request(
                method, f"/admin/v1{path}", content=content, headers=self._headers
            )
        except httpx2.HTTPError as error:
            raise Lost(str(error) or type(error).__name__) from None
        if answer.status_code >= REFUSED:
            raise Refused(_reason(answer.content))
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.MsgspecError:
            raise Refused("another version of gigarouter answers: start it again") from None

    async def call(self, key: str, path: str, body: dict[str, Any]) -> Tried:
        """Make a paid call, as a client would.

        Raises:
            Lost: nobody answers.
        """
        headers = {"authorization": f"Bearer {key}", "prefer": "wait=60"}
        began_ns = CLOCK.monotonic_ns()
        try:
            answer = await self._client.post(path, json=body, headers=headers)
        except httpx2.HTTPError as error:
            raise Lost(str(error) or type(error).__name__) from None
        return Tried(
            answer.status_code,
            answer.json(),
            answer.headers.get("x-cost", "0"),
            answer.headers.get("x-balance", ""),
            (CLOCK.monotonic_ns() - began_ns) / 1e6,
        )


def _reason(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content)["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "the server answered something that is not ours"


class AdminClient:
    """The operator's verbs, by name."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def stats(self, span_s: int = 60) -> Stats:
        """Return what the server does now."""
        return await self.gateway.get(f"/stats?span={span_s}", Stats)

    async def keys(self) -> list[KeyView]:
        """Return every key."""
        return (await self.gateway.get("/keys", KeyList)).data

    async def mint(self, order: MintOrder) -> MintedKey:
        """Make a key."""
        return await self.gateway.send("POST", "/keys", MintedKey, order)

    async def top_up(self, key_id: str, credit: str) -> KeyView:
        """Add credits to a key."""
        return await self.gateway.send("POST", f"/keys/{key_id}/topup", KeyView, TopUpOrder(credit))

    async def rotate(self, key_id: str) -> RotatedKey:
        """Give a key a new plaintext."""
        return await self.gateway.send("POST", f"/keys/{key_id}/rotate", RotatedKey, RotateOrder())

    async def revoke(self, key_id: str) -> KeyView:
        """Refuse a key from now on."""
        return await self.gateway.send("POST", f"/keys/{key_id}/revoke", KeyView)

    async def usage(self, by: str, since: str, *, key: str, model: str) -> UsageReport:
        """Return what was sold, to one key or of one model, or `all`."""
        asked = f"/usage?by={by}&since={since}&key={quote(key)}&model={quote(model, safe='')}"
        return await self.gateway.get(asked, UsageReport)

    async def doctor(self) -> Report:
        """Return what a look at the server's health finds."""
        return await self.gateway.get("/doctor", Report)

    async def log(self, after: str) -> LogView:
        """Return the lines of the log that came after a view's cursor."""
        return await self.gateway.get(f"/log?after={quote(after)}", LogView)

    async def models(self) -> list[ModelView]:
        """Return every model."""
        return (await self.gateway.get("/models", ModelList)).data

    async def engines(self) -> EngineList:
        """Return what is in memory, and the devices."""
        return await self.gateway.get("/engines", EngineList)

    async def downloads(self) -> list[DownloadView]:
        """Return every download since the server's start."""
        return (await self.gateway.get("/downloads", DownloadList)).data

    async def pull(self, model: str) -> DownloadView:
        """Begin to fetch a model."""
        return await self.gateway.send("POST", "/downloads", DownloadView, ModelOrder(model))

    async def cancel(self, download: str) -> DownloadView:
        """End a download; what was fetched is kept."""
        return await self.gateway.send("DELETE", f"/downloads/{download}", DownloadView)

    async def add(self, order: HubModelOrder) -> ModelView:
        """Put a repository of the hub into the catalogue."""
        return await self.gateway.send("POST", "/downloads/catalog", ModelView, order)

    async def load(self, model: str) -> EngineView:
        """Bring a model into memory."""
        return await self.gateway.send("POST", "/engines/load", EngineView, ModelOrder(model))

    async def unload(self, model: str) -> EngineView:
        """Free a model's memory."""
        return await self.gateway.send("POST", "/engines/unload", EngineView, ModelOrder(model))

    async def pin(self, model: str, *, on: bool) -> EngineView:
        """Keep a model in memory, or no longer."""
        return await self.gateway.send("POST", "/engines/pin", EngineView, PinOrder(model, on))

    async def verify(self, model: str) -> CheckView:
        """Hold a model's file against the catalogue."""
        return await self.gateway.send("POST", "/models/verify", CheckView, ModelOrder(model))

    async def remove(self, model: str) -> RemovedView:
        """Remove a model's file."""
        return await self.gateway.send("POST", "/models/remove", RemovedView, ModelOrder(model))

    async def price(self, model: str, realtime: str) -> ModelView:
        """Change what a model costs; half of it in the batch tier."""
        return await self.gateway.send(
            "POST", "/models/price", ModelView, PriceOrder(model, realtime)
        )

    async def alias(self, model: str, aliases: list[str]) -> ModelView:
        """Change which other names a model answers to."""
        return await self.gateway.send(
            "POST", "/models/alias", ModelView, AliasOrder(model, aliases)
        )
