"""Offline: files and batches, put together.

Owns nothing but the grouping.
"""

import asyncio
from dataclasses import dataclass

from appliance.accounts.held_bytes import HeldBytes
from appliance.batches.batch_orders import BatchOrders
from appliance.batches.batch_runner import BatchRunner
from appliance.batches.file_expiry import FileExpiry
from appliance.batches.file_store import FileStore, sweep
from appliance.batches.work import Refusal, Work
from appliance.ledger.books import Books
from appliance.observe.meters import Meters
from appliance.pipeline import Pipeline
from appliance.store.datadir import DataDir
from appliance.token_inputs import TokenInputs


@dataclass(frozen=True, slots=True)
class Offline:
    """The parts of a server that answer later."""

    files: FileStore
    batches: BatchOrders
    runner: BatchRunner
    expiry: FileExpiry

    @property
    def chores(self) -> tuple[BatchRunner, FileExpiry]:
        """What runs beside calls."""
        return self.runner, self.expiry

    @classmethod
    async def over(
        cls,
        directory: DataDir,
        books: Books,
        pipeline: Pipeline,
        meters: Meters,
        token_inputs: TokenInputs,
        refusal: Refusal,
    ) -> "Offline":
        """Return it over open books; what a crash has left of files is removed."""
        await asyncio.to_thread(sweep, directory.files, books.writer)
        limits = pipeline.limits
        held = limits.batch_held_bytes_max
        work = Work(
            pipeline=pipeline,
            keyring=books.keyring,
            writer=books.writer,
            meters=meters,
            token_inputs=token_inputs,
            clock=books.clock,
            limits=limits,
            folder=directory.files,
            refusal=refusal,
            held=HeldBytes(bytes_max=held, per_key_max=limits.batch_held_bytes_per_key_max),
            checking=asyncio.Lock(),
        )
        runner = BatchRunner(work)
        store = FileStore(directory.files, books.writer, books.clock, limits)
        orders = BatchOrders(runner, store, books.writer, books.clock, limits)
        return cls(store, orders, runner, FileExpiry(store))
