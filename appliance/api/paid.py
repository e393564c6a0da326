"""Paid: the HTTP side of a call that costs money.

Owns the order of refusal (key, size of the body, shape of the body, then the pipeline's own order)
and the headers of an answer. A route admits a request, makes a task of its body, and has the task
answered:

    async with services.paid.admitted(request) as paid:
        return await paid.answer(openai.embed_task(paid.body, services.limits))
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from litestar import Response
from litestar.background_tasks import BackgroundTask

from appliance.accounts.held_bytes import CallBytes, HeldBytes
from appliance.accounts.key import Key
from appliance.accounts.limiter import Limiter
from appliance.api import error_responses
from appliance.api.auth import Authenticator
from appliance.api.disconnect import watched
from appliance.api.request import (
    AnyRequest,
    credential_of,
    discard_unread,
    idempotency_key_of,
    is_dry_run,
    note_headers,
    preferred_wait,
    read_body,
    refuse_large,
    request_id_of,
    tier_of,
    trace_parent_of,
)
from appliance.call import PATIENCE_BATCH_S, PATIENCE_S, Answer, Call, Meant, Quote, within
from appliance.core.clock import Clock
from appliance.core.errors import ApplianceError, DailyBudgetExceeded, DailyBudgetSpent
from appliance.core.failpoint import reach
from appliance.core.limits import Limits
from appliance.core.units import Picocredits, credits_text
from appliance.observe.meters import CallRecord, Meters
from appliance.pipeline import Pipeline
from appliance.pricing.tariff import Tier
from appliance.tasks.task import Task
from appliance.tokenizing import FreeAnswer, FreeCall
from appliance.wire.json import encode

JSON = "application/json"
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class PaidRequest:
    """A request whose key is good and whose body was read."""

    calls: "PaidCalls"
    request: AnyRequest
    key: Key
    body: bytes
    held: CallBytes
    request_id: str
    tier: Tier
    wait_s: int | None
    """Of `Prefer: wait=N`; None: it was not sent."""
    is_dry_run: bool
    began_ns: int
    authenticated_ns: int
    meant: Meant

    async def answer(self, task: Task) -> Response[bytes]:
        """Return the answer to a task, or what it would cost if that was asked.

        Raises:
            ApplianceError: every refusal of the error table.
            ClientGone: the client hung up.
        """
        return await self.calls.answer(self, task)

    async def answer_free(
        self, work: Callable[[FreeCall], Awaitable[FreeAnswer]]
    ) -> Response[bytes]:
        """Return the answer to something that costs nothing.

        Raises:
            ApplianceError: every refusal of the error table that is not about money.
            ClientGone: the client hung up.
        """
        return await self.calls.answer_free(self, work)


class PaidCalls:
    """Takes paid calls from HTTP to the pipeline and back."""

    def __init__(
        self,
        pipeline: Pipeline,
        authenticator: Authenticator,
        limiter: Limiter,
        meters: Meters,
        *,
        clock: Clock,
        default_wait_s: int,
        daily_budget_passes: bool = True,
    ) -> None:
        self._pipeline = pipeline
        self._authenticator = authenticator
        self._limiter = limiter
        self._meters = meters
        self._clock = clock
        self._default_wait_s = default_wait_s
        self._daily_budget_passes = daily_budget_passes
        """False: a daily budget that is used up is no matter of waiting, but of credit."""
        self.limits: Limits = pipeline.limits
        self._held = HeldBytes(
            bytes_max=self.limits.held_bytes_max, per_key_max=self.limits.held_bytes_per_key_max
        )

    @asynccontextmanager
    async def admitted(self, request: AnyRequest) -> AsyncIterator[PaidRequest]:
        """Yield a request whose key may call models; whatever is raised in the block is counted.

        Raises:
            ApplianceError: it is refused for its size, its key, a header or its body.
        """
        began_ns = self._clock.monotonic_ns()
        await refuse_large(request, self.limits)
        try:
            key = self._authenticator.require(request, credential_of(request), "infer")
        except ApplianceError as error:
            self._refused(request, error, began_ns)
            await discard_unread(request)
            raise
        authenticated_ns = self._clock.monotonic_ns()
        held = request.scope["state"]["held"] = self._held.of_call(key.id)
        meant = Meant()
        try:
            yield PaidRequest(
                calls=self,
                request=request,
                key=key,
                body=await read_body(request, self.limits, held),
                held=held,
                request_id=request_id_of(request),
                tier=tier_of(request),
                wait_s=preferred_wait(request, self.limits),
                is_dry_run=is_dry_run(request),
                began_ns=began_ns,
                authenticated_ns=authenticated_ns,
                meant=meant,
            )
        except Exception as error:
            shown = self._shown(error)
            self._refused(request, shown, began_ns, key, meant.model)
            note_headers(request, self._limiter.headers(key))
            if shown is not error:
                raise shown from None
            raise

    def _shown(self, error: Exception) -> Exception:
        """Return what a client is answered for an error."""
        if isinstance(error, DailyBudgetExceeded) and not self._daily_budget_passes:
            return DailyBudgetSpent()
        return error

    async def answer(self, paid: PaidRequest, task: Task) -> Response[bytes]:
        """Return the answer to a task.

        Raises:
            ApplianceError: every refusal of the error table.
            ClientGone: the client hung up.
        """
        with watched(paid.request) as client:
            call = Call(
                request_id=paid.request_id,
                key=paid.key,
                tier=paid.tier,
                wait_s=self._default_wait_s if paid.wait_s is None else paid.wait_s,
                client=client,
                held=paid.held,
                patience_s=_patience_s(paid),
                idempotency_key=idempotency_key_of(
                    paid.request, task.kind, task.shape, paid.tier, paid.body
                ),
                meant=paid.meant,
            )
            if paid.is_dry_run:
                quote = await self._pipeline.quote(call, task)
                self._note(paid.request, paid.began_ns, key=paid.key, model=quote.spec.id)
                return self._quoted(call, task, quote)
            answer = await self._pipeline.run(call, task)
        headers = self._headers(call, answer, paid)
        self._answered(call, answer, paid.began_ns, trace_parent_of(paid.request))
        if paid.wait_s is not None:
            headers["preference-applied"] = f"wait={paid.wait_s}"
        reach("before_send")
        return Response(
            answer.body,
            status_code=200,
            media_type=JSON,
            headers=headers,
            background=BackgroundTask(self._pipeline.delivered, answer),
        )

    async def answer_free(
        self, paid: PaidRequest, work: Callable[[FreeCall], Awaitable[FreeAnswer]]
    ) -> Response[bytes]:
        """Return the answer to something that costs nothing.

        Raises:
            ApplianceError: every refusal of the error table that is not about money.
            ClientGone: the client hung up.
        """
        wait_s = self._default_wait_s if paid.wait_s is None else paid.wait_s
        with watched(paid.request):
            async with within(self.limits.call_seconds_max):
                answer = await work(FreeCall(paid.key, wait_s, paid.held, paid.meant))
        self._note(paid.request, paid.began_ns, key=paid.key, model=answer.model)
        headers = {"x-cost": "0", **self._limiter.headers(paid.key)}
        return Response(answer.body, status_code=200, media_type=JSON, headers=headers)

    def _answered(self, call: Call, answer: Answer, began_ns: int, trace_parent: str) -> None:
        self._meters.note(
            CallRecord(
                request_id=call.request_id,
                status=200,
                code="",
                key=call.key.name,
                key_id=call.key.id,
                model=answer.spec.id,
                tier=call.tier,
                tokens=answer.tokens_sold,
                documents=answer.documents_sold,
                is_charged=not answer.is_replay,
                amount=Picocredits(0) if answer.is_replay else answer.charge.amount,
                total_ms=self._ms_since(began_ns),
                stages=answer.timings.stages,
                spans=answer.timings.spans,
                trace_parent=trace_parent,
            )
        )

    def refused_at_the_edge(self, request: AnyRequest, error: ApplianceError) -> None:
        """Count a request that reached no route."""
        self._refused(request, error, self._clock.monotonic_ns())

    def _refused(
        self,
        request: AnyRequest,
        error: Exception,
        began_ns: int,
        key: Key | None = None,
        model: str = "",
    ) -> None:
        status, code = error_responses.status_and_code(error)
        self._note(request, began_ns, status, code, key=key, model=model)

    def _note(
        self,
        request: AnyRequest,
        began_ns: int,
        status: int = 200,
        code: str = "",
        *,
        key: Key | None,
        model: str = "",
    ) -> None:
        """Count a call that cost nothing."""
        self._meters.note(
            CallRecord(
                request_id=request_id_of(request),
                status=status,
                code=code,
                key=key.name if key else "",
                key_id=key.id if key else "",
                model=model,
                tier="",
                tokens=0,
                documents=0,
                is_charged=False,
                amount=Picocredits(0),
                total_ms=self._ms_since(began_ns),
                stages={},
                trace_parent=trace_parent_of(request),
            )
        )

    def _ms_since(self, began_ns: int) -> float:
        return (self._clock.monotonic_ns() - began_ns) / NS_PER_MS

    def _headers(self, call: Call, answer: Answer, paid: PaidRequest) -> dict[str, str]:
        left = answer.available
        auth_ms = (paid.authenticated_ns - paid.began_ns) / NS_PER_MS
        stages = {"auth": auth_ms, **answer.timings.stages}
        headers = {
            "x-tier": call.tier,
            "x-cost": credits_text(answer.charge.amount),
            "x-balance": "unlimited" if left is None else credits_text(left),
            "x-model-fingerprint": answer.spec.fingerprint,
            "server-timing": ", ".join(f"{name};dur={ms:.3f}" for name, ms in stages.items()),
            **self._limiter.headers(call.key),
        }
        if answer.plan.truncated:
            headers["x-truncated"] = str(answer.plan.truncated)
        if answer.is_replay:
            headers["idempotent-replayed"] = "true"
        return headers

    def _quoted(self, call: Call, task: Task, quote: Quote) -> Response[bytes]:
        plan = quote.plan
        document: dict[str, Any] = {
            "object": "dry_run",
            "model": quote.spec.id,
            "usage": {"prompt_tokens": plan.tokens, "total_tokens": plan.tokens},
            "units": quote.units,
            "unit": "tokens" if task.kind == "embeddings" else "documents",
            "cost": quote.credits,
            "would_truncate": plan.truncated,
        }
        headers = {"x-tier": call.tier, "x-cost": "0", **self._limiter.headers(call.key)}
        return Response(encode(document), status_code=200, media_type=JSON, headers=headers)


def _patience_s(paid: PaidRequest) -> float:
    """Return how long a call may wait for its turn; `Prefer: wait=0` is about cold models alone."""
    if paid.tier == "batch":
        return max(PATIENCE_BATCH_S, paid.wait_s or 0)
    return paid.wait_s or PATIENCE_S
