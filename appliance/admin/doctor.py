"""Doctor: a look at the appliance's health, and what to do about what is found.

Owns the checks, each a function of facts that gives one finding.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from appliance import descriptors
from appliance.admin.engines import EngineAdmin
from appliance.admin.model_findings import loaded, memory, models
from appliance.admin.models import ModelAdmin
from appliance.core.address import is_loopback
from appliance.core.clock import Clock
from appliance.core.errors import ApplianceError, InvalidSettings, LoadFailed
from appliance.descriptors import Descriptors
from appliance.engine.devices import native_facts
from appliance.hub.connection import without_secrets
from appliance.hub.remote import Hub
from appliance.ledger.backup_schedule import BackupSchedule
from appliance.ledger.books import Books
from appliance.ledger.books_health import BooksHealth, look
from appliance.listen_address import resolved
from appliance.settings import Settings, injected_variables
from appliance.store.database import WAY_OUT
from appliance.store.datadir import DataDir
from appliance.wire.doctor import Finding, Report

GB = 1_000_000_000
DISK_LOW_BYTES = 2 * GB
DISK_FULL_BYTES = GB // 5
US_PER_MIN = 60_000_000
US_PER_H = 3_600_000_000
AUDIT_OLD_US = 3 * US_PER_H
"""Three audits were missed."""
LOG_LARGE_BYTES = 64_000_000
"""Sixteen times as long as it is when no program reads the books for long."""
GUARD_BEHIND_MAX = 1_000
"""Transfers that may be committed between the looks at both files."""


class Doctor:
    """Looks at one appliance, with a server or without."""

    def __init__(
        self,
        directory: DataDir,
        books: Books,
        models: ModelAdmin,
        engines: EngineAdmin,
        schedule: BackupSchedule,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._books = books
        self._models = models
        self._engines = engines
        self._schedule = schedule
        self._settings = settings
        self._clock = clock

    async def report(self, asks_hub: str = "false") -> Report:
        """Return what a look at everything finds; `true`: the hub is asked whether it answers."""
        found = await asyncio.to_thread(of_machine, self._directory)
        found.append(environment(injected_variables()))
        found.append(await asyncio.to_thread(network, self._settings))
        if asks_hub == "true":
            found.append(await asyncio.to_thread(hub, self._settings))
        now_us = self._clock.wall_us()
        if self._settings.tls.cert:
            found.append(
                await asyncio.to_thread(certificate, self._directory, self._settings, now_us)
            )
        found.append(keys(has_live=self._books.keyring.has_live(now_us)))
        found += books(await asyncio.to_thread(look, self._directory, self._books), now_us)
        found.append(await asyncio.to_thread(self._backups))
        views, damaged = (await self._models.all()).data, await self._models.damaged()
        found += models(views, self._models.fault, damaged)
        found += await self._memory()
        return Report(all(each.status != "fail" for each in found), found)

    def _backups(self) -> Finding:
        now_us = self._clock.wall_us()
        ages = [now_us - path.stat().st_mtime_ns // 1000 for path in self._schedule.files()]
        return backups(self._schedule.every_h, min(ages, default=None), self._schedule.last_error)

    async def _memory(self) -> list[Finding]:
        if not self._engines.serves:
            return [memory(await self._engines.devices())]
        engines = await self._engines.all()
        return [memory(engines.devices), *loaded(engines)]


def of_machine(directory: DataDir) -> list[Finding]:
    """Look at what needs neither books nor settings."""
    return [
        files(directory),
        disk(directory.path),
        open_files(descriptors.current()),
        engine(native_facts),
    ]


def refused(error: ApplianceError) -> Finding:
    """Return what kept the appliance from opening."""
    return Finding("start", "fail", error.message, "mend this first: nothing starts without it")


def files(directory: DataDir) -> Finding:
    """Check that other users of this machine cannot read key hashes, credits or the admin token."""
    if directory.path.exists() and not os.access(directory.path, os.R_OK | os.W_OK | os.X_OK):
        return Finding("files", "fail", f"{directory.path} cannot be used", "check its owner")
    if directory.path.exists() and directory.path.stat().st_uid != os.geteuid():
        return Finding(
            "files",
            "warn",
            f"{directory.path}: {directory.exposure()}",
            f"chown -R to the user of the server: {directory.path}",
        )
    try:
        if directory.path.exists():
            directory.require_own()
    except InvalidSettings as error:
        return Finding("files", "fail", error.message, "until then a start is refused")
    secret = (directory.path, directory.database, directory.path / "admin.token")
    open_to_others = [
        path.name
        for path in secret
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    ]
    if open_to_others:
        return Finding(
            "files",
            "warn",
            f"others on this machine may open {', '.join(open_to_others)}",
            f"chmod -R go-rwx {directory.path}",
        )
    return Finding("files", "ok", f"{directory.path} is its owner's alone")


def disk(path: Path) -> Finding:
    """Say whether there is room for books, backups and models."""
    there = next(each for each in (path, *path.parents) if each.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / GB:.1f} GB are free on the disk"
    if free < DISK_FULL_BYTES:
        return Finding("disk", "fail", said, "free some: calls are refused when it is full")
    if free < DISK_LOW_BYTES:
        return Finding("disk", "warn", said, "remove models that nobody calls: models remove ID")
    return Finding("disk", "ok", said)


def open_files(found: Descriptors) -> Finding:
    """Say how many files and connections a server may have open."""
    if found.are_few:
        return Finding(
            "open files", "warn", str(found), "ulimit -n 65536, or LimitNOFILE= of the service"
        )
    return Finding("open files", "ok", str(found))


def engine(facts: Callable[[], dict[str, str]]) -> Finding:
    """Say whether llama.cpp can be used, and with which kernels."""
    try:
        found = facts()
    except (ImportError, OSError, RuntimeError, LoadFailed) as error:
        return Finding(
            "engine", "fail", f"llama.cpp cannot be loaded: {error}", "gigarouter engine install"
        )
    said = f"llama-cpp-python {found['llama-cpp-python']} with {found['kernels']} kernels"
    if not found["kernels"].startswith("gigarouter"):
        return Finding("engine", "warn", said, "gigarouter engine install makes it faster")
    if not found["memory"].startswith("gigarouter"):
        said = f"{said}; long sequences take {found['memory']} memory for logits that nobody reads"
        return Finding(
            "engine", "warn", said, "gigarouter engine install lets models take longer ones"
        )
    return Finding("engine", "ok", said)


def environment(ignored: Sequence[str]) -> Finding:
    """Say which variables with our prefix are not settings and are ignored."""
    if not ignored:
        return Finding("environment", "ok", "every variable with our prefix is a setting")
    return Finding(
        "environment",
        "warn",
        f"ignored, as set by Kubernetes or Docker: {', '.join(ignored)}",
        "name the service otherwise, or set enableServiceLinks: false",
    )


def network(settings: Settings) -> Finding:
    """Say who can reach the server, and who can read along."""
    try:
        resolved(settings.host)
    except InvalidSettings as error:
        return Finding("network", "fail", error.message, "host in config.toml")
    if is_loopback(settings.host):
        return Finding("network", "ok", f"{settings.host} is for this machine alone")
    if not settings.tls.cert:
        return Finding(
            "network",
            "warn",
            f"{settings.host} is open without TLS: keys can be read on the way",
            "console, LAN, o with a certificate; or gigarouter tls make",
        )
    missing = [name for name in (settings.tls.cert, settings.tls.key) if not Path(name).is_file()]
    if missing:
        return Finding("network", "fail", f"there is no {missing[0]}", "name another in tls")
    return Finding("network", "ok", f"{settings.host} is open to the network, with TLS")


def hub(settings: Settings) -> Finding:
    """Ask the hub whether it answers, in 5 s."""
    where = without_secrets(settings.hub.endpoint)
    if settings.hub.offline:
        return Finding("hub", "ok", "offline is set (hub.offline): nothing is fetched")
    try:
        Hub(settings.hub).ask()
    except ApplianceError as error:
        return Finding("hub", "warn", error.message, "models that are here are served without it")
    return Finding("hub", "ok", f"{where} answers")


def certificate(directory: DataDir, settings: Settings, now_us: int) -> Finding:
    """Say how long the certificate is good, and what its fingerprint is."""
    from appliance.local_ca import RENEW_DAYS, LocalCa, now_utc  # noqa: PLC0415 - only with TLS

    path = Path(settings.tls.cert)
    found = LocalCa(directory.tls).show(path, now_utc(now_us))
    if found is None:
        return Finding("certificate", "fail", f"{path} holds none", "name another in tls.cert")
    said = f"{path} is good until {found.expires}; SHA-256 {found.fingerprint}"
    if found.days_left < 0:
        fix = "start the server again: it renews it" if found.is_ours else "get a new one"
        return Finding("certificate", "fail", f"{path} ended on {found.expires}", fix)
    if found.days_left < RENEW_DAYS:
        fix = "start the server again: it renews it" if found.is_ours else "renew it"
        return Finding("certificate", "warn", said, fix)
    return Finding("certificate", "ok", said)


def keys(*, has_live: bool) -> Finding:
    """Check that a live key exists."""
    if has_live:
        return Finding("keys", "ok", "there is a live key")
    return Finding("keys", "warn", "no live key: nobody may call", "gigarouter keys mint NAME")


def books(health: BooksHealth, now_us: int) -> list[Finding]:
    """Say how the books are, a finding for each thing that is wrong; one finding if nothing is."""
    found = [*_books_failures(health), *_books_warnings(health, now_us)]
    if found:
        return found
    age_min = max(0, now_us - health.audited_us) // US_PER_MIN
    said = f"{health.bytes / 1e6:.1f} MB, log {health.log_bytes / 1e6:.1f} MB"
    return [Finding("books", "ok", f"{said}; they agreed {age_min} minutes ago")]


def _books_failures(health: BooksHealth) -> Iterator[Finding]:
    if health.damage is not None:
        yield Finding("books", "fail", f"the database is damaged: {health.damage}", WAY_OUT)
    if not health.guard_agrees:
        said = f"transfer {health.guard_seq}, which was written, is not in them"
        yield Finding("books", "fail", said, WAY_OUT)
    if health.audit_problem is not None:
        yield Finding("books", "fail", f"they do not agree: {health.audit_problem}", WAY_OUT)
    elif health.broken is not None:
        fix = f"check the disk and start the server again; if it refuses, {WAY_OUT}"
        yield Finding("books", "fail", f"they are closed: {health.broken}", fix)


def _books_warnings(health: BooksHealth, now_us: int) -> Iterator[Finding]:
    if health.audit_error is not None:
        said = f"the last audit could not be done: {health.audit_error}"
        yield Finding("books", "warn", said, "the log says more; a start of the server audits too")
    elif now_us - health.audited_us > AUDIT_OLD_US:
        said = f"the last audit is {(now_us - health.audited_us) // US_PER_H} hours old"
        yield Finding("books", "warn", said, "start the server again: a start audits")
    if not health.has_reserve:
        fix = "free some: until then no new call is served"
        yield Finding("books", "warn", "the disk has no room for their reserve", fix)
    if health.log_bytes > LOG_LARGE_BYTES:
        said = f"their log is {health.log_bytes / 1e6:.0f} MB long, because a program reads them"
        yield Finding("books", "warn", said, "end the program that holds gigarouter.db open")
    behind = health.last_seq - health.guard_seq
    if health.guard_agrees and behind > GUARD_BEHIND_MAX:
        said = f"ledger.head is {behind} transfers behind: a rollback would not be noticed"
        yield Finding("books", "warn", said, "check that ledger.head can be written")


def backups(every_h: int, age_us: int | None, last_error: str | None) -> Finding:
    """Say whether there is a copy that is young enough."""
    if last_error is not None:
        return Finding(
            "backups", "fail", f"the last one failed: {last_error}", "gigarouter backup FILE"
        )
    if every_h == 0:
        return Finding("backups", "warn", "none is made by itself", "backup.every_h in config.toml")
    if age_us is None:
        return Finding("backups", "ok", f"none yet; a server makes one every {every_h} h")
    age_h = age_us / US_PER_H
    if age_h > 2 * every_h:
        return Finding(
            "backups", "warn", f"the last one is {age_h:.0f} h old", "gigarouter backup FILE"
        )
    return Finding("backups", "ok", f"the last one is {age_h:.0f} h old")
