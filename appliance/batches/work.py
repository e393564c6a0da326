"""Work: what the runs of all batches share.

Owns the parts of the server that a batch is computed with.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.accounts.held_bytes import HeldBytes
from appliance.accounts.keyring import Keyring
from appliance.core.clock import Clock
from appliance.core.errors import ApplianceError
from appliance.core.limits import Limits
from appliance.observe.meters import Meters
from appliance.pipeline import Pipeline
from appliance.store.writer import Writer
from appliance.token_inputs import TokenInputs

Refusal = Callable[[ApplianceError], tuple[int, bytes]]
"""The status and the JSON body that answer an error."""


@dataclass(frozen=True, slots=True)
class Work:
    """The parts of one server."""

    pipeline: Pipeline
    keyring: Keyring
    writer: Writer
    meters: Meters
    token_inputs: TokenInputs
    clock: Clock
    limits: Limits
    folder: Path
    """Where files are."""
    refusal: Refusal
    held: HeldBytes
    """Memory of lines and answers, apart from that of calls."""
    checking: asyncio.Lock
    """One file is checked at a time: that takes memory for each of its lines."""


async def pause(seconds: float, is_over: Callable[[], bool]) -> None:
    """Return after so many seconds, or soon after it is over."""
    while seconds > 0 and not is_over():
        await asyncio.sleep(min(seconds, LOOK_S))
        seconds -= LOOK_S


LOOK_S = 0.5
"""How soon what waits sees that its batch was cancelled, or that the server stops."""
