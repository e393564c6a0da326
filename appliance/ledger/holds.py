"""Holds: a hold always ends, once, whatever becomes of the call that opened it.

Owns what happens to a hold when its caller leaves or the store fails for a while.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from appliance.core.errors import HoldNotOpen, RetryableError
from appliance.ledger.entry import Charge, Hold, IdempotencyKey, Purchase
from appliance.ledger.ledger import Ledger

log = logging.getLogger("gigarouter.holds")

RELEASE_PAUSES_S = (1, 2, 5, 10, 30, *(60,) * 60)
"""Between the tries to release a hold while the store fails: about an hour."""


class Holds:
    """Opens, settles and releases holds for callers who may be cancelled at any moment."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._background: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        """Count the holds whose callers have left."""
        return f"<Holds [{len(self._background)} in the background]>"

    async def open(self, purchase: Purchase) -> Hold:
        """Reserve the price; a caller who leaves meanwhile gets it back.

        Raises:
            DailyBudgetExceeded: the key's budget of this day does not cover it.
            InsufficientCredit: the balance does not cover it.
        """
        opening = asyncio.create_task(self._ledger.hold(purchase))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._give_back)
            raise

    async def settle(self, hold: Hold, idempotency_key: IdempotencyKey | None) -> Charge:
        """Charge the hold; a caller who leaves meanwhile gets the charge back.

        Raises:
            LedgerUnavailable, StorageFull: the charge is not in the books, and the hold is
                released.
        """
        settling = asyncio.create_task(self._ledger.settle(hold, idempotency_key))
        try:
            return await asyncio.shield(settling)
        except asyncio.CancelledError:
            # Nobody is there to hand the answer to.
            settling.add_done_callback(lambda task: self._take_back(task, hold))
            raise
        except Exception:
            await self.release(hold)
            raise

    async def release(self, hold: Hold) -> None:
        """Give a hold back; if the store cannot now, try again in the background."""
        try:
            await asyncio.shield(asyncio.create_task(self._ledger.release(hold)))
        except HoldNotOpen:
            log.exception("hold %d was resolved twice", hold.id)
        except RetryableError as error:
            log.warning("hold %d is not released yet: %s", hold.id, error)
            self._in_background(self._release_later(hold))
        except Exception:
            log.exception("hold %d could not be released; trying again", hold.id)
            self._in_background(self._release_later(hold))

    async def _release_later(self, hold: Hold) -> None:
        # What is still open when the server stops is released when it starts next.
        for pause_s in RELEASE_PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                await self._ledger.release(hold)
            except HoldNotOpen:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed
                log.warning("hold %d could not be released: %r", hold.id, error)
            else:
                return

    def _give_back(self, opening: "asyncio.Task[Hold]") -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._in_background(self.release(opening.result()))

    def _take_back(self, settling: "asyncio.Task[Charge]", hold: Hold) -> None:
        if settling.cancelled() or settling.exception() is not None:
            self._in_background(self.release(hold))
        else:
            self._in_background(self._refund(settling.result()))

    async def _refund(self, charge: Charge) -> None:
        try:
            await self._ledger.refund(charge.seq)
        except Exception:
            # It stands among the undelivered, which are refunded when the server starts next.
            log.exception("charge %d could not be refunded yet", charge.seq)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
