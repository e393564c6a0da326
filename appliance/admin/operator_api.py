"""Operator API: the operator's verbs, grouped by what they act on.

Owns nothing but the grouping. The server offers it over HTTP and the command line uses it directly
when no server runs, so both do the same.
"""

from dataclasses import dataclass

import msgspec

from appliance import machine
from appliance.admin.books import BooksAdmin
from appliance.admin.doctor import Doctor
from appliance.admin.downloads import DownloadAdmin
from appliance.admin.engines import EngineAdmin
from appliance.admin.keys import KeyAdmin
from appliance.admin.models import ModelAdmin, Models
from appliance.admin.trials import TrialAdmin
from appliance.admin.usage import UsageAdmin
from appliance.core.limits import Limits
from appliance.engine.devices import native_devices
from appliance.engine.screening import Screening, trusted
from appliance.hub.downloads import Downloads
from appliance.hub.remote import Hub
from appliance.ledger.backup_schedule import BackupSchedule
from appliance.ledger.books import Books
from appliance.scheduler.model_status import OfflineStatus
from appliance.scheduler.residency import Residency
from appliance.settings import Settings
from appliance.store.audit_log import AuditLog
from appliance.store.datadir import DataDir
from appliance.wire.models import ModelView


@dataclass(frozen=True, slots=True)
class OperatorApi:
    """Everything an operator can do."""

    keys: KeyAdmin
    models: ModelAdmin
    books: BooksAdmin
    usage: UsageAdmin
    downloads: DownloadAdmin
    engines: EngineAdmin
    trials: TrialAdmin
    doctor: Doctor
    audit_log: AuditLog

    @classmethod
    def over(
        cls,
        directory: DataDir,
        books: Books,
        models: Models,
        schedule: BackupSchedule,
        limits: Limits,
        downloads: Downloads,
        settings: Settings,
        *,
        screening: Screening | None,
        residency: Residency | None = None,
    ) -> "OperatorApi":
        """Return the operator's API of a data directory.

        `residency` is given by a server; `screening` tries files before they are used (None: the
        engine is fake, and uses none).
        """
        screen = trusted if screening is None else screening.require
        offline = OfflineStatus(directory.models, settings.engine, screening)
        keyring, clock = books.keyring, books.clock
        model_admin = ModelAdmin(models, residency or offline, screen)
        engines = EngineAdmin(
            models, residency, clock, native_devices, settings.threads or machine.cores()
        )
        return cls(
            keys=KeyAdmin(books, keyring, models, clock=clock, limits=limits),
            models=model_admin,
            downloads=DownloadAdmin(models, model_admin, Hub(settings.hub), downloads, screen),
            engines=engines,
            trials=TrialAdmin(models, screening, engines.forgive),
            books=BooksAdmin(directory, schedule, clock),
            usage=UsageAdmin(directory, keyring, clock),
            doctor=Doctor(directory, books, model_admin, engines, schedule, settings, clock),
            audit_log=AuditLog(directory.audit_log, clock),
        )

    async def show_model(self, name: str) -> ModelView:
        """Return one model with what the trial of its file found.

        Raises:
            ModelNotFound: no model has this name.
        """
        view = await self.models.show(name)
        spec = self.models.catalog.find(view.id)
        return msgspec.structs.replace(view, trial=self.trials.find(spec))
