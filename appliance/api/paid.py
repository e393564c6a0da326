"""Paid: the HTTP side of a call that costs money.

Owns the order of refusal (size of the body, key, shape of the body, then the pipeline's own order)
and the headers of an answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litestar import Response
from litestar.background_tasks import BackgroundTask

from appliance.accounts.key import Key
from appliance.accounts.limiter import Limiter
from appliance.api import error_responses
from appliance.api.auth import Authenticator
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
    while_connected,
)
from appliance.call import Answer, Call, Question, Quote
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import ApplianceError
from appliance.core.failpoint import reach
from appliance.core.limits import Limits
from appliance.core.units import Picocredits, credits_text
from appliance.engine.vectors import Matrix
from appliance.observe.meters import CallRecord, Meters
from appliance.pipeline import Pipeline
from appliance.tasks.embedding import Plan
from appliance.wire.json import encode

JSON = "application/json"
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Task:
    """What an endpoint adds to a paid call."""

    model: str
    task: str
    check: Callable[[ModelSpec], None]
    """Refuses what can be refused before any work."""
    question: Callable[[ModelSpec], Question]
    answer: Callable[[ModelSpec, Plan, Matrix], bytes]


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
    ) -> None:
        self._pipeline = pipeline
        self._authenticator = authenticator
        self._limiter = limiter
        self._meters = meters
        self._clock = clock
        self._default_wait_s = default_wait_s
        self.limits: Limits = pipeline.limits

    async def serve(
        self, request: AnyRequest, parse: Callable[[bytes, str], Task]
    ) -> Response[bytes]:
        """Answer one call.

        `parse` makes a task of the body and the request id.

        Raises:
            ApplianceError: every refusal of the error table.
            ClientGone: the client hung up.
        """
        began_ns = self._clock.monotonic_ns()
        await refuse_large(request, self.limits)
        try:
            key = self._authenticator.require(request, credential_of(request), "infer")
        except ApplianceError as error:
            self._refused(request, error, began_ns)
            await discard_unread(request)
            raise
        auth_ms = (self._clock.monotonic_ns() - began_ns) / NS_PER_MS
        try:
            return await self._answer(request, key, parse, auth_ms, began_ns)
        except Exception as error:
            self._refused(request, error, began_ns, key)
            note_headers(request, self._limiter.headers(key))
            raise

    async def _answer(
        self,
        request: AnyRequest,
        key: Key,
        parse: Callable[[bytes, str], Task],
        auth_ms: float,
        began_ns: int,
    ) -> Response[bytes]:
        body = await read_body(request, self.limits)
        request_id = request_id_of(request)
        tier = tier_of(request)
        dry_run = is_dry_run(request)
        wait_s = preferred_wait(request, self.limits)
        task = parse(body, request_id)
        call = Call(
            request_id=request_id,
            key=key,
            tier=tier,
            wait_s=self._default_wait_s if wait_s is None else wait_s,
            idempotency_key=idempotency_key_of(request, task.task, tier, body),
        )
        spec = self._pipeline.resolve(call, task.model, task.task)
        task.check(spec)
        question = task.question(spec)
        if dry_run:
            quote = await while_connected(request, self._pipeline.quote(call, spec, question))
            return self._quoted(call, spec, quote)
        answer, content = await while_connected(
            request, self._pipeline.run(call, spec, question, task.answer)
        )
        headers = self._headers(call, answer, auth_ms)
        self._answered(call, answer, began_ns)
        if wait_s is not None:
            headers["preference-applied"] = f"wait={wait_s}"
        reach("before_send")
        return Response(
            content,
            status_code=200,
            media_type=JSON,
            headers=headers,
            background=BackgroundTask(self._pipeline.delivered, answer),
        )

    def _answered(self, call: Call, answer: Answer, began_ns: int) -> None:
        self._meters.note(
            CallRecord(
                request_id=call.request_id,
                status=200,
                code="",
                key=call.key.name,
                model=answer.spec.id,
                tier=call.tier,
                is_documents=answer.spec.task == "rerank",
                units=answer.units,
                amount=Picocredits(0) if answer.is_replay else answer.charge.amount,
                total_ms=self._ms_since(began_ns),
                stages=answer.timings.stages,
            )
        )

    def _refused(
        self, request: AnyRequest, error: Exception, began_ns: int, key: Key | None = None
    ) -> None:
        status, code = error_responses.status_and_code(error)
        self._meters.note(
            CallRecord(
                request_id=request_id_of(request),
                status=status,
                code=code,
                key=key.name if key else "",
                model="",
                tier="",
                is_documents=False,
                units=0,
                amount=Picocredits(0),
                total_ms=self._ms_since(began_ns),
                stages={},
            )
        )

    def _ms_since(self, began_ns: int) -> float:
        return (self._clock.monotonic_ns() - began_ns) / NS_PER_MS

    def _headers(self, call: Call, answer: Answer, auth_ms: float) -> dict[str, str]:
        balance = answer.charge.balance
        stages = {"auth": auth_ms, **answer.timings.stages}
        headers = {
            "x-tier": call.tier,
            "x-cost": credits_text(answer.charge.amount),
            "x-balance": "unlimited" if balance.unlimited else credits_text(balance.available),
            "x-model-fingerprint": answer.spec.fingerprint,
            "server-timing": ", ".join(f"{name};dur={ms:.3f}" for name, ms in stages.items()),
            **self._limiter.headers(call.key),
        }
        if answer.plan.truncated:
            headers["x-truncated"] = str(answer.plan.truncated)
        if answer.is_replay:
            headers["idempotent-replayed"] = "true"
        return headers

    def _quoted(self, call: Call, spec: ModelSpec, quote: Quote) -> Response[bytes]:
        plan = quote.plan
        document: dict[str, Any] = {
            "object": "dry_run",
            "model": spec.id,
            "usage": {"prompt_tokens": plan.tokens, "total_tokens": plan.tokens},
            "units": quote.units,
            "unit": "tokens" if spec.task == "embeddings" else "documents",
            "cost": quote.credits,
            "would_truncate": plan.truncated,
        }
        headers = {"x-tier": call.tier, "x-cost": "0", **self._limiter.headers(call.key)}
        return Response(encode(document), status_code=200, media_type=JSON, headers=headers)
