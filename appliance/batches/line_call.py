"""LineCall: one line of a batch, computed and charged by the pipeline, like any call.

Owns what becomes of a refusal: what passes by itself is tried again until the batch ends, what is
the line's own fault is its answer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from appliance.accounts.held_bytes import CallBytes
from appliance.accounts.key import Key
from appliance.batches.endpoints import TASKS
from appliance.batches.lines import Line
from appliance.batches.result_writer import Result
from appliance.batches.results import answered, unanswered
from appliance.batches.work import Work, pause
from appliance.call import PATIENCE_BATCH_S, Answer, Call, Meant
from appliance.core import ids
from appliance.core.errors import (
    ApplianceError,
    Draining,
    InferenceFailed,
    InvalidKey,
    RetryableError,
    TrialUnfinished,
)
from appliance.core.units import Picocredits
from appliance.ledger.batches import Batch
from appliance.ledger.entry import BatchLine, Charge
from appliance.observe.meters import CallRecord
from appliance.tasks.embed import EmbedTask

log = logging.getLogger("gigarouter.batches")

FIRST_S = 0.25
"""Before the second try; doubled for each further one."""
LONGEST_S = 60.0
TRIES_MAX = 3
"""Of a line that the server could not compute: the fourth would end alike."""
SERVER_FAULT = 500
PASSING = (429, 503)
NS_PER_MS = 1_000_000
FREE = Picocredits(0)


class Stayer:
    """The client of a line: it is always there."""

    async def require_connected(self) -> None:
        """Return."""


@dataclass(frozen=True, slots=True)
class LineCall:
    """One line on its way."""

    work: Work
    batch: Batch
    line: Line
    charge: Charge | None
    """What was charged for it before a crash."""
    is_over: Callable[[], bool]
    """Says whether it is not to be tried again."""

    async def result(self) -> Result | None:
        """Return what is to be written; None: it was given up, and nothing is owed.

        Raises:
            InvalidKey: the batch's key was revoked or has expired.
        """
        request_id, tries = ids.request_id(), 0
        held = self.work.held.of_call(self.batch.key_id)
        try:
            while True:
                tries += 1
                began_ns = self.work.clock.monotonic_ns()
                try:
                    answer = await self._run(request_id, held, meant := Meant())
                except (Draining, InvalidKey) as error:
                    held.release()
                    if isinstance(error, InvalidKey):
                        raise
                    return None
                except Exception as error:  # noqa: BLE001 - whatever it is, it is this line's end
                    held.release()
                    known = self._known(error)
                    again_s = self._again_s(known, tries)
                    if again_s is None:
                        return self._refused(known, request_id, began_ns, meant.model)
                    await pause(again_s, self.is_over)
                    if self.is_over():
                        return None
                else:
                    return self._answered(answer, request_id, began_ns, held)
        except asyncio.CancelledError:
            held.release()
            raise

    async def _run(self, request_id: str, held: CallBytes, meant: Meant) -> Answer:
        key = self._key()
        held.take(len(self.line.body))
        task = TASKS[self.batch.endpoint](self.line.body, self.work.limits, request_id)
        if isinstance(task, EmbedTask):
            task = await self.work.token_inputs.resolved(task, key, meant)
        call = Call(
            request_id=request_id,
            key=key,
            tier="batch",
            wait_s=self.work.limits.wait_seconds_max,
            client=Stayer(),
            held=held,
            patience_s=PATIENCE_BATCH_S,
            idempotency_key=BatchLine(self.batch.id, self.line.number, self.charge),
            meant=meant,
        )
        return await self.work.pipeline.run(call, task)

    def _key(self) -> Key:
        key = self.work.keyring.get(self.batch.key_id)
        self.work.keyring.require_live(key, self.work.clock.wall_us())
        return key

    def _known(self, error: Exception) -> ApplianceError:
        if isinstance(error, ApplianceError):
            return error
        log.error("a line of %s failed", self.batch.id, exc_info=error)
        return InferenceFailed("unexpected error; the log says more")

    def _again_s(self, error: ApplianceError, tries: int) -> float | None:
        """Return after how many seconds it is tried again; None: it is not."""
        status, _ = self.work.refusal(error)
        is_passing = status in PASSING
        if not is_passing and (
            tries >= TRIES_MAX or not (status >= SERVER_FAULT or isinstance(error, TrialUnfinished))
        ):
            return None
        seconds: float = FIRST_S * 2 ** min(tries - 1, 10)
        if isinstance(error, RetryableError):
            seconds = max(seconds, error.retry_after_s)
        # Not all at the same moment.
        return min(seconds, LONGEST_S) * (1 + self.line.number % 16 / 16)

    def _answered(self, answer: Answer, request_id: str, began_ns: int, held: CallBytes) -> Result:
        amount = FREE if answer.is_replay else answer.charge.amount
        self._note(answer, request_id, began_ns, amount=amount, model=answer.spec.id)
        content = answered(
            self.batch.id,
            self.line.number,
            self.line.custom_id,
            request_id=request_id,
            status=200,
            body=answer.body,
        )
        return Result(content, is_error=False, seq=answer.charge.seq, held=held)

    def _refused(self, error: ApplianceError, request_id: str, began_ns: int, model: str) -> Result:
        status, body = self.work.refusal(error)
        self._note(None, request_id, began_ns, status=status, code=error.code, model=model)
        content = answered(
            self.batch.id,
            self.line.number,
            self.line.custom_id,
            request_id=request_id,
            status=status,
            body=body,
        )
        return Result(content, is_error=True, seq=None, held=None)

    def _note(
        self,
        answer: Answer | None,
        request_id: str,
        began_ns: int,
        *,
        status: int = 200,
        code: str = "",
        amount: Picocredits = FREE,
        model: str,
    ) -> None:
        self.work.meters.note(
            CallRecord(
                request_id=request_id,
                status=status,
                code=code,
                key=self.work.keyring.get(self.batch.key_id).name,
                key_id=self.batch.key_id,
                model=model,
                tier="batch",
                tokens=0 if answer is None else answer.tokens_sold,
                documents=0 if answer is None else answer.documents_sold,
                is_charged=answer is not None and not answer.is_replay,
                amount=amount,
                total_ms=(self.work.clock.monotonic_ns() - began_ns) / NS_PER_MS,
                stages={} if answer is None else answer.timings.stages,
                spans={} if answer is None else answer.timings.spans,
            )
        )


def expired(batch: Batch, line: Line) -> Result:
    """Return the answer to a line that was not computed in time."""
    content = unanswered(
        batch.id,
        line.number,
        line.custom_id,
        code="batch_expired",
        message="This request could not be executed before the completion window expired.",
    )
    return Result(content, is_error=True, seq=None, held=None)
