"""Sending: the body of an answer, to a client that may read it slowly or never.

Granian keeps a body that it is given whole until the client has read it, however long that takes.
In pieces it takes the next one only when the one before is on its way.
"""

import asyncio
import logging
from typing import Any

from litestar.types import Message, Send

log = logging.getLogger("gigarouter.api")

PIECE_BYTES = 64 * 1024
BYTES_PER_S = 100_000
"""What a client must read at least, once a first time-out is over."""


class TimedSend:
    """Sends the answer of one request; cuts it off if the client does not read it in time.

    Each piece may take `seconds_max`, the whole so long and a second for each 100 kB.
    """

    def __init__(self, send: Send, *, seconds_max: float) -> None:
        self._send = send
        self._seconds_max = seconds_max
        self.is_cut = False

    async def __call__(self, message: Message) -> None:
        """Send one message; none after the answer was cut off."""
        if self.is_cut:
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body, is_more = message["body"], message.get("more_body", False)
        if not is_more and len(body) <= PIECE_BYTES:
            await self._send(message)  # the kernel takes it
            return
        try:
            async with asyncio.timeout(self._seconds_max + len(body) / BYTES_PER_S):
                await self._send_pieces(body, is_more=is_more)
        except TimeoutError:
            # Its head promised more bytes: the connection is closed when this request ends.
            self.is_cut = True
            log.warning("an answer was cut off: its client did not read it in time")

    async def _send_pieces(self, body: bytes, *, is_more: bool) -> None:
        for first in range(0, max(1, len(body)), PIECE_BYTES):
            end = first + PIECE_BYTES
            piece: Any = {
                "type": "http.response.body",
                "body": body[first:end],
                "more_body": is_more or end < len(body),
            }
            async with asyncio.timeout(self._seconds_max):
                await self._send(piece)
