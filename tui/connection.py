"""Connection: the server of the console, which may be missing for a while.

Screens keep one connection. Its caller is replaced when the server starts or its address changes.
"""

from typing import Protocol, TypeVar

import msgspec

from appliance.client.errors import ServerLost
from appliance.client.paid import Ranking, Vectors
from appliance.client.verbs import Verb

T = TypeVar("T")


class Caller(Protocol):
    """Requests of screens: `appliance.client.caller.AsyncCaller`, or a test's own."""

    url: str

    async def close(self) -> None:
        """Close the connections."""
        ...

    async def do(self, verb: Verb[T], *names: str, order: msgspec.Struct | None = None) -> T:
        """Send a request of the operator's API and return its answer.

        Raises:
            ServerUnreachable: there is no answer, or it is a refusal.
        """
        ...

    async def embed(self, key: str, model: str, texts: list[str]) -> Vectors:
        """Make a paid call for the vectors of texts; raises as `do`."""
        ...

    async def rerank(self, key: str, model: str, query: str, documents: list[str]) -> Ranking:
        """Make a paid call for the order of documents; raises as `do`."""
        ...


class Connection:
    """A caller that can be replaced."""

    def __init__(self, caller: Caller | None) -> None:
        self._caller = caller

    @property
    def is_open(self) -> bool:
        """Whether there is a server to send requests to."""
        return self._caller is not None

    @property
    def url(self) -> str:
        """The address of the server, as it is in its note."""
        return "no server yet" if self._caller is None else self._caller.url

    async def use(self, caller: Caller) -> None:
        """Send all requests to another server from now on."""
        before, self._caller = self._caller, caller
        if before is not None:
            await before.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._caller is not None:
            await self._caller.close()

    async def do(self, verb: Verb[T], *names: str, order: msgspec.Struct | None = None) -> T:
        """Send a request of the operator's API and return its answer.

        Raises:
            ServerUnreachable: there is no answer, or it is a refusal.
        """
        return await self._require().do(verb, *names, order=order)

    async def embed(self, key: str, model: str, texts: list[str]) -> Vectors:
        """Make a paid call for the vectors of texts; raises as `do`."""
        return await self._require().embed(key, model, texts)

    async def rerank(self, key: str, model: str, query: str, documents: list[str]) -> Ranking:
        """Make a paid call for the order of documents; raises as `do`."""
        return await self._require().rerank(key, model, query, documents)

    def _require(self) -> Caller:
        if self._caller is None:
            raise ServerLost("no server runs yet")
        return self._caller
