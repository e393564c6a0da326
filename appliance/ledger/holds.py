"""Holds: a hold always ends, once, whatever becomes of the call that opened it.

Owns what happens to a hold when its caller is cancelled or the store fails for a while. A caller
that is cancelled stays until what it owes is given back: until then its Idempotency-Key and its
place among the key's calls are taken, so that the same call sent again is not answered from a
charge that is about to be refunded.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from appliance.core.cancellation import uninterrupted
from appliance.core.errors import HoldNotOpen
from appliance.ledger.entry import Charge, Hold, Purchase, Repeatable
from appliance.ledger.ledger import Ledger

log = logging.getLogger("gigarouter.holds")

REFUND_PAUSES_S = (1, 2, 5, 10, 30, *(60,) * 60)
"""Between the tries to refund while the store fails: about an hour."""


class Holds:
    """Settles and releases holds for callers that may be cancelled at any moment."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._retrying: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        """Count what could not be given back yet."""
        return f"<Holds [{len(self._retrying)} to be given back]>"

    def open(self, purchase: Purchase) -> Hold:
        """Reserve the price.

        Raises:
            DailyBudgetExceeded: the key's budget of this day does not cover it.
            InsufficientCredit: the balance does not cover it.
            QueueFull, StorageFull, LedgerUnavailable: it could not be settled now.
        """
        return self._ledger.hold(purchase)

    async def settle(self, hold: Hold, idempotency_key: Repeatable | None) -> Charge:
        """Charge the hold; the charge is refunded if the caller is cancelled meanwhile.

        Raises:
            LedgerUnavailable, StorageFull: the charge is not in the books, and the hold is
                released.
        """
        settling = asyncio.create_task(self._ledger.settle(hold, idempotency_key))
        try:
            return await asyncio.shield(settling)
        except asyncio.CancelledError:
            # Nobody is there to hand the answer to.
            await uninterrupted(self._take_back(settling, hold))
            raise
        except Exception:
            self.release(hold)
            raise

    def release(self, hold: Hold) -> None:
        """Give a hold back."""
        try:
            self._ledger.release(hold)
        except HoldNotOpen:
            log.exception("hold %d was resolved twice", hold.id)

    async def _take_back(self, settling: "asyncio.Task[Charge]", hold: Hold) -> None:
        """Refund a charge as soon as it is written, or release its hold if it is not."""
        await asyncio.wait((settling,))
        if settling.cancelled() or settling.exception() is not None:
            self.release(hold)
            return
        seq = settling.result().seq
        try:
            await self._ledger.refund(seq)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed
            log.warning("charge %d is not refunded yet: %r", seq, error)
            self._retry(f"charge {seq} could not be refunded", lambda: self._ledger.refund(seq))

    def _retry(self, what: str, attempt: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.create_task(self._try_again(what, attempt))
        self._retrying.add(task)
        task.add_done_callback(self._retrying.discard)

    async def _try_again(self, what: str, attempt: Callable[[], Awaitable[object]]) -> None:
        # What is not given back when the server stops is given back when it starts next: charges
        # among the undelivered are refunded.
        for pause_s in REFUND_PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may succeed
                log.warning("%s: %r", what, error)
            else:
                return
