"""An appliance inside the test's own process, over the fake engine: it can be slow, fail and die."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from appliance.compose import Appliance, open_appliance
from appliance.core.limits import Limits
from appliance.engine.fake import FakeBackend
from appliance.engine.fake_loader import FakeLoader
from appliance.ledger.books import Books, open_books
from appliance.observe.log_buffer import LogBuffer
from appliance.settings import Settings
from appliance.store.datadir import DataDir
from appliance.wire.keys import MintedKey, MintOrder


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, wall_us: int = 1_790_000_000_000_000) -> None:
        self.wall = wall_us
        self.mono_ns = 1_000_000_000

    def wall_us(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.mono_ns

    def advance(self, seconds: float) -> None:
        self.wall += int(seconds * 1_000_000)
        self.mono_ns += int(seconds * 1_000_000_000)


class Connected:
    """A client that stays."""

    async def require_connected(self) -> None:
        """Stay."""


@dataclass
class Bench:
    """What a test holds."""

    appliance: Appliance
    books: Books
    client: httpx2.AsyncClient
    directory: DataDir
    clock: HandClock
    limits: Limits

    @property
    def backend(self) -> FakeBackend:
        """The fake engine that was loaded last."""
        assert isinstance(self.appliance.loader, FakeLoader)
        return self.appliance.loader.opened[-1]

    async def mint(self, **order: Any) -> MintedKey:
        return await self.appliance.admin.keys.mint(
            MintOrder(**{"name": "test", "credit": "unlimited", **order})
        )

    async def key(self, **order: Any) -> dict[str, str]:
        """Return the header of a new key."""
        return {"authorization": f"Bearer {(await self.mint(**order)).key}"}


@asynccontextmanager
async def bench(
    path: Path, *, limits: Limits | None = None, preload: bool = True, **settings: Any
) -> AsyncIterator[Bench]:
    """Yield an appliance over a data directory, with the starter model's shape."""
    directory = DataDir(path)
    # A clock that stands still would let nobody ask without a key after the first hundred.
    bounds = replace(limits or Limits(), keyless_requests_per_second_max=1_000_000)
    clock = HandClock()
    with directory.locked(), open_books(directory, clock, bounds) as books:
        chosen = msgspec.convert({"fake_engine": True, "default_wait_s": 0, **settings}, Settings)
        async with open_appliance(directory, books, chosen, bounds, LogBuffer()) as appliance:
            if preload:
                await appliance.preload()
            # In this loop, unlike Litestar's own test client, which would be a second one.
            transport = httpx2.ASGITransport(app=appliance.app, client=("127.0.0.1", 50_000))
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8642", timeout=60
            ) as client:
                yield Bench(appliance, books, client, directory, clock, bounds)
