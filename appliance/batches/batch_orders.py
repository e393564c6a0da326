"""BatchOrders: what a key may do with batches: order, look at and cancel them.

Owns the checks of an order. What is in its file is checked later, by the run.
"""

import asyncio

from appliance.accounts.key import Key
from appliance.batches.batch_runner import BatchRunner
from appliance.batches.endpoints import TASKS
from appliance.batches.file_store import FileStore, read
from appliance.core import ids
from appliance.core.clock import Clock
from appliance.core.errors import FileNotFound, InvalidRequest
from appliance.core.limits import Limits
from appliance.ledger import batches
from appliance.ledger.batches import Batch
from appliance.store.writer import Writer
from appliance.wire.batches import WINDOW, BatchOrder

PAIRS_MAX = 16
NAME_CHARS_MAX, VALUE_CHARS_MAX = 64, 512
"""Of `metadata`; OpenAI's own limits."""
US_PER_S = 1_000_000


class BatchOrders:
    """The batches of all keys."""

    def __init__(
        self, runner: BatchRunner, store: FileStore, writer: Writer, clock: Clock, limits: Limits
    ) -> None:
        self._runner = runner
        self._store = store
        self._writer = writer
        self._clock = clock
        self._limits = limits

    def __repr__(self) -> str:
        """Show the runner."""
        return f"<BatchOrders {self._runner!r}>"

    async def create(self, key: Key, order: BatchOrder) -> Batch:
        """Order a batch.

        Raises:
            InvalidRequest: the order is wrong, or the key has too many batches; `param` says which.
            StorageFull, LedgerUnavailable: it cannot be kept.
        """
        if order.endpoint not in TASKS:
            known = ", ".join(TASKS)
            raise InvalidRequest(f"endpoint is one of {known}", param="endpoint")
        if order.completion_window != WINDOW:
            raise InvalidRequest(f"completion_window is {WINDOW!r}", param="completion_window")
        metadata = _checked_metadata(order.metadata or {})
        await self._require_input(key, order.input_file_id)
        now_us, limits = self._clock.wall_us(), self._limits
        batch = Batch(
            id=ids.batch_id(),
            key_id=key.id,
            endpoint=order.endpoint,
            input_file=order.input_file_id,
            metadata=metadata,
            status="validating",
            created_us=now_us,
            expires_us=now_us + limits.batch_seconds_max * US_PER_S,
            output_file=ids.file_id(),
            error_file=ids.file_id(),
        )
        open_max, kept_max = limits.batches_open_per_key_max, limits.batches_kept_per_key_max
        await self._writer.run(
            lambda connection: batches.insert(
                connection, batch, open_max=open_max, kept_max=kept_max
            ),
            essential=False,
        )
        self._runner.add(batch)
        return batch

    async def _require_input(self, key: Key, file_id: str) -> None:
        try:
            file = await self._store.find(key, file_id)
        except FileNotFound as error:
            raise InvalidRequest(error.message, param="input_file_id") from None
        if file.purpose != "batch":
            raise InvalidRequest(
                f"{file.id} has the purpose {file.purpose!r}; upload one with 'batch'",
                param="input_file_id",
            )

    async def show(self, key: Key, batch_id: str) -> Batch:
        """Return a batch as it is now.

        Raises:
            BatchNotFound: this key has none with this id.
        """
        path = self._writer.path
        found = await asyncio.to_thread(read, path, lambda c: batches.find(c, key.id, batch_id))
        return self._runner.progress(found)

    async def page(self, key: Key, *, after: str | None, limit: int) -> tuple[list[Batch], bool]:
        """Return up to `limit` of a key's batches, the newest first, and whether there are more.

        Raises:
            BatchNotFound: `after` is no batch of this key.
        """
        last = None if after is None else await self.show(key, after)
        found = await asyncio.to_thread(
            read,
            self._writer.path,
            lambda connection: batches.page(connection, key.id, after=last, limit=limit + 1),
        )
        return [self._runner.progress(batch) for batch in found[:limit]], len(found) > limit

    async def cancel(self, key: Key, batch_id: str) -> Batch:
        """Cancel a batch; what was answered stays. One that has ended stays as it is.

        Raises:
            BatchNotFound: this key has none with this id.
            StorageFull, LedgerUnavailable: the books cannot say so now.
        """
        batch = await self.show(key, batch_id)
        if batch.is_open:
            await self._runner.cancel(batch)
        return await self.show(key, batch_id)


def _checked_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > PAIRS_MAX:
        raise InvalidRequest(f"metadata has {PAIRS_MAX} pairs at most", param="metadata")
    for name, value in metadata.items():
        if len(name) > NAME_CHARS_MAX or len(value) > VALUE_CHARS_MAX:
            raise InvalidRequest(
                f"metadata: a name has {NAME_CHARS_MAX} characters at most, a value "
                f"{VALUE_CHARS_MAX}",
                param="metadata",
            )
    return metadata
