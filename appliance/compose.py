"""Compose: the only place where objects are wired together.

Owns the order in which a server's parts are made and unmade.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from appliance.accounts.failed_auth import FailedAuthLimiter
from appliance.accounts.limiter import Limiter
from appliance.accounts.refused_access import RefusedAccess
from appliance.admin.models import Models
from appliance.admin.operator_api import OperatorApi
from appliance.api import error_responses
from appliance.api.app import create_app
from appliance.api.auth import Authenticator
from appliance.api.clients import Clients
from appliance.api.connections import Connections
from appliance.api.cors import Cors
from appliance.api.edge import Edge, machine_name
from appliance.api.events import Events
from appliance.api.guard import OperatorGuard
from appliance.api.hosts import Hosts
from appliance.api.pace import Pace
from appliance.api.paid import PaidCalls
from appliance.api.services import Services
from appliance.batches.offline import Offline
from appliance.core.clock import Clock
from appliance.core.limits import Limits
from appliance.descriptors import current
from appliance.engine.crash_marker import culprits
from appliance.engine.fake_loader import FakeLoader
from appliance.engine.isolation import Isolation
from appliance.engine.loader import LlamaLoader, Loader
from appliance.engine.model_limits import memory_budget
from appliance.engine.screening import Screening
from appliance.hub.downloads import Downloads
from appliance.ledger.audit_schedule import AuditSchedule
from appliance.ledger.backup_schedule import BackupSchedule
from appliance.ledger.billing import Billing
from appliance.ledger.books import Books
from appliance.ledger.retention_schedule import RetentionSchedule
from appliance.machine import cores
from appliance.metering import Chore, metering
from appliance.model_lookup import ModelLookup
from appliance.observe.log_buffer import LogBuffer
from appliance.observe.meters import Meters
from appliance.pipeline import Pipeline
from appliance.scheduler.cache import VectorCache
from appliance.scheduler.file_watch import FileWatch
from appliance.scheduler.load_times import LoadTimes
from appliance.scheduler.residency import Residency
from appliance.scheduler.threads import ThreadPool
from appliance.settings import Settings
from appliance.store.audit_log import AuditLog
from appliance.store.datadir import DataDir
from appliance.token_inputs import TokenInputs
from appliance.tokenizing import Tokenizing

log = logging.getLogger("gigarouter.serve")


@dataclass(frozen=True, slots=True)
class Appliance:
    """Everything that one server is made of."""

    app: object
    """The ASGI application."""
    pipeline: Pipeline
    residency: Residency
    admin: OperatorApi
    models: Models
    loader: Loader
    connections: Connections
    meters: Meters

    async def preload(self) -> None:
        """Load the models that the catalogue marks for it."""
        await self.residency.preload(
            spec for spec in self.models.catalog if spec.entry.preload and spec.path.exists()
        )


@asynccontextmanager
async def open_appliance(
    directory: DataDir,
    books: Books,
    settings: Settings,
    limits: Limits,
    log_buffer: LogBuffer,
    last_words: Sequence[str] = (),
) -> AsyncIterator[Appliance]:
    """Wire a server over open books; free its models at the end of the block.

    `last_words`: what the process before wrote when native code ended it; empty if it did not.

    Raises:
        InvalidCatalog: a catalogue file is wrong.
    """
    clock = books.clock
    models = Models.read(directory)
    screening = _screening(models, directory, settings, clock, last_words)
    loader = _loader(models, settings, clock, screening, limits)
    threads, answers = pools = _pools(limits)
    residency = _residency(models, settings, loader, threads, clock, limits, screening)
    limiter, billing = Limiter(clock), Billing.on(books, clock)
    pipeline = _pipeline(models, books, residency, answers, limiter, billing, limits, settings)
    schedule, downloads = BackupSchedule(directory, settings.backup, clock), Downloads(clock)
    parts = directory, books, models, schedule, limits, downloads, settings
    admin = OperatorApi.over(*parts, residency=residency, screening=screening)
    authenticator = _authenticator(books, settings, limits, admin.audit_log)
    metrics, meters, counting = metering(books, settings)
    paid = _paid(pipeline, authenticator, limiter, meters, clock, settings)
    token_inputs = _token_inputs(settings, models, pipeline.models, threads, limits)
    offline = await Offline.over(
        directory, books, pipeline, meters, token_inputs, error_responses.refusal
    )
    services = Services(
        admin,
        paid,
        pipeline,
        residency,
        authenticator,
        billing.ledger,
        clock,
        limits,
        meters,
        metrics,
        log_buffer,
        Events(),
        Tokenizing(pipeline.looked_up, residency, limits),
        token_inputs,
        offline,
    )
    edge = _edge(settings, authenticator.clients, clock, limits)
    app = create_app(services, _guard(directory, authenticator, settings), edge)
    own: tuple[Chore, ...] = (schedule, authenticator.refused, edge.connections, *offline.chores)
    watching = FileWatch(residency.pool)
    chores = (*counting, *own, *_of_books(directory, books, settings), watching)
    async with _running(chores, downloads, billing, residency, pools, screening):
        yield Appliance(app, pipeline, residency, admin, models, loader, edge.connections, meters)


def _paid(
    pipeline: Pipeline,
    authenticator: Authenticator,
    limiter: Limiter,
    meters: Meters,
    clock: Clock,
    settings: Settings,
) -> PaidCalls:
    return PaidCalls(
        pipeline,
        authenticator,
        limiter,
        meters,
        clock=clock,
        default_wait_s=settings.default_wait_s,
        daily_budget_passes=settings.daily_budget_status == 429,  # noqa: PLR2004 - as it is written
    )


def _of_books(directory: DataDir, books: Books, settings: Settings) -> tuple[Chore, ...]:
    """Return what is done with the books beside calls."""
    return AuditSchedule(directory, books), RetentionSchedule(books, settings.books.keep_days)


@asynccontextmanager
async def _running(
    chores: Sequence[Chore],
    downloads: Downloads,
    billing: Billing,
    residency: Residency,
    pools: Sequence[ThreadPool],
    screening: Screening | None,
) -> AsyncIterator[None]:
    """Run the chores during the block; then stop callers before what they call."""
    every = (*chores, residency, residency.calibration)
    tasks = [asyncio.create_task(chore.run(), name=type(chore).__name__) for chore in every]
    for task in tasks:
        task.add_done_callback(_require_cancelled)
    try:
        yield
    finally:
        residency.drain()
        if screening is not None:
            # First: a download or an order of the operator's may wait for a trial.
            await asyncio.to_thread(screening.close)
        await asyncio.to_thread(downloads.close)
        await billing.delivery_acks.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await residency.close()
        for pool in pools:
            pool.close(wait=pool.is_idle)


def _require_cancelled(chore: "asyncio.Task[None]") -> None:
    """Say it in the log if a background task ended by an error: it does not run any more."""
    if not chore.cancelled() and (error := chore.exception()) is not None:
        log.critical("%s ended, and runs no more", chore.get_name(), exc_info=error)


def _pipeline(
    models: Models,
    books: Books,
    residency: Residency,
    answers: ThreadPool,
    limiter: Limiter,
    billing: Billing,
    limits: Limits,
    settings: Settings,
) -> Pipeline:
    lookup = ModelLookup(lambda: models.catalog, residency, default_models=settings.default_models)
    pipeline = Pipeline(
        models=lookup,
        residency=residency,
        answers=answers,
        limiter=limiter,
        billing=billing,
        require_live=lambda key: books.keyring.require_live(key, books.clock.wall_us()),
        clock=books.clock,
        limits=limits,
        batch_delay_s=settings.batch_delay_s,
    )
    books.keyring.on_revoked = pipeline.drop
    return pipeline


def _residency(
    models: Models,
    settings: Settings,
    loader: Loader,
    threads: ThreadPool,
    clock: Clock,
    limits: Limits,
    screening: Screening | None,
) -> Residency:
    engine = settings.engine
    residency = Residency(
        loader,
        threads,
        clock=clock,
        limits=limits,
        cache=VectorCache(engine.cache_mb * 1_000_000),
        memory_bytes=memory_budget(engine),
        idle_s=engine.idle_s,
        times=LoadTimes(models.directory.path / "load-times.json"),
        screening=screening,
    )
    loop = asyncio.get_running_loop()

    def changed() -> None:
        """Follow a change of the catalogue; on whatever thread it was made."""
        with suppress(RuntimeError):  # the loop has ended, and with it all models
            loop.call_soon_threadsafe(residency.keep_only, models.catalog)

    models.on_change = changed
    residency.keep_only(models.catalog)
    for spec in models.catalog:
        if spec.entry.pin:
            residency.pin(spec, on=True)
    return residency


def _token_inputs(
    settings: Settings, models: Models, lookup: ModelLookup, threads: ThreadPool, limits: Limits
) -> TokenInputs:
    chosen, folder = settings.token_ids, settings.tiktoken_dir
    path = models.directory.path
    return TokenInputs(chosen, folder, path, lookup, threads, limits)


def _pools(limits: Limits) -> tuple[ThreadPool, ThreadPool]:
    """Return the threads that tokenize, and those that write large answers."""
    calls, per_key = limits.tokenizing_calls_max, limits.tokenizing_calls_per_key_max
    return (
        ThreadPool(workers=2, calls_max=calls, per_key_max=per_key),
        ThreadPool(workers=1, calls_max=calls),
    )


def _authenticator(
    books: Books, settings: Settings, limits: Limits, audit_log: AuditLog
) -> Authenticator:
    clients = Clients(settings.trusted_proxies, own_address=settings.host)
    failed = _failed_auth(books.clock, limits)
    refused = RefusedAccess(partial(_tell_refused, audit_log))
    return Authenticator(books.keyring, failed, books.clock, clients, refused)


def _guard(directory: DataDir, authenticator: Authenticator, settings: Settings) -> OperatorGuard:
    allow_remote = settings.admin.allow_remote
    return OperatorGuard(directory.admin_token(), authenticator, allow_remote=allow_remote)


def _edge(settings: Settings, clients: Clients, clock: Clock, limits: Limits) -> Edge:
    pace = Pace(
        clock,
        per_second=limits.keyless_requests_per_second_max,
        addresses_max=limits.failing_addresses_max,
    )
    hosts = Hosts(settings.hosts, bound=settings.host, machine=machine_name())
    connections = Connections(clock, port=settings.port, places=current().connections)
    return Edge(hosts, Cors(settings.cors_origins), clients, pace, connections)


def _screening(
    models: Models,
    directory: DataDir,
    settings: Settings,
    clock: Clock,
    last_words: Sequence[str],
) -> Screening | None:
    if settings.fake_engine:
        return None
    screening = Screening.over(directory, models.digests, settings.engine)
    _look_back(screening, clock, last_words)
    return screening


def _look_back(screening: Screening, clock: Clock, last_words: Sequence[str]) -> None:
    """Say what the server before died over, and let the files of it be set aside."""
    try:
        left = screening.begin_marking()
        if left:
            log.warning(
                "the last server ended while it was %s", "; ".join(mark.words for mark in left)
            )
        if last_words:
            screening.crashes.note(culprits(left, last_words), clock.wall_us())
    except OSError as error:
        log.warning("what kills a server will not be known: %s", error)


def _failed_auth(clock: Clock, limits: Limits) -> FailedAuthLimiter:
    return FailedAuthLimiter(
        clock,
        failures_per_minute=limits.failed_keys_per_minute_max,
        addresses_max=limits.failing_addresses_max,
    )


def _tell_refused(audit_log: AuditLog, address: str, reasons: dict[str, int]) -> None:
    """Say in both logs who was refused in the last minute for want of a good credential."""
    counts = ", ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items()))
    log.warning("refused within a minute, from %s: %s", address or "an unknown address", counts)
    audit_log.note(
        who="nobody", what="access", outcome="refused", origin=address, order=dict(reasons)
    )


def _loader(
    models: Models, settings: Settings, clock: Clock, screening: Screening | None, limits: Limits
) -> Loader:
    if screening is None:
        return FakeLoader()
    return LlamaLoader(
        settings.engine,
        cores=settings.threads or cores(),
        tunings=models.directory.models,
        clock=clock,
        screen=screening.require,
        watch=screening.watched,
        digests=models.digests,
        isolation=Isolation(settings.engine.isolation, limits.call_seconds_max),
    )
