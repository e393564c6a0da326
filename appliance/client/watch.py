"""Watch: what is asked again and again while a verb is carried out that takes long."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from appliance.client.verbs import Verb
from appliance.core.errors import ApplianceError

T = TypeVar("T")
L = TypeVar("L")

LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Watch(Generic[L]):
    """A verb that reads, and who is shown its answers."""

    verb: Verb[L]
    show: Callable[[L], None]
    names: tuple[str, ...] = ()
    """Of the verb's path."""


async def watched(
    work: Coroutine[Any, Any, T], look: Callable[[], Awaitable[L]], show: Callable[[L], None]
) -> T:
    """Return the result of `work`; until it ends, `show` is given what `look` returns.

    A look that is refused shows nothing, and the next one is made all the same.
    """

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            with suppress(ApplianceError):
                show(await look())

    looking = asyncio.create_task(keep_looking())
    try:
        return await work
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
