"""Local: the operator's requests done on the data directory itself, where no server runs.

Owns the pairing of each request with the method of the operator's API that does it, so that a
command does the same with a running server and without one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from appliance.client import verbs
from appliance.client.verbs import Verb
from appliance.client.watch import Watch, watched
from appliance.core.errors import ApplianceError
from appliance.store.audit_log import facts_of, this_user
from appliance.store.datadir import DataDir

if TYPE_CHECKING:
    from appliance.admin.operator_api import OperatorApi

T = TypeVar("T")

Act = Callable[..., Coroutine[Any, Any, Any]]
"""Takes the names as text, then the order if the verb has one."""

ACTS: "Mapping[Verb[Any], Callable[[OperatorApi], Act]]" = {
    verbs.MINT: lambda admin: admin.keys.mint,
    verbs.LIST_KEYS: lambda admin: admin.keys.all,
    verbs.SHOW_KEY: lambda admin: admin.keys.show,
    verbs.TOP_UP: lambda admin: admin.keys.top_up,
    verbs.REVOKE: lambda admin: admin.keys.revoke,
    verbs.ROTATE: lambda admin: admin.keys.rotate,
    verbs.EXPIRE: lambda admin: admin.keys.expire,
    verbs.LIMIT: lambda admin: admin.keys.limit,
    verbs.FORGET: lambda admin: admin.keys.forget,
    verbs.LIST_MODELS: lambda admin: admin.models.all_and_fault,
    verbs.SHOW_MODEL: lambda admin: admin.show_model,
    verbs.TRY_MODEL: lambda admin: admin.trials.run,
    verbs.WATCH_TRIAL: lambda admin: admin.trials.running,
    verbs.PRICE_MODEL: lambda admin: admin.models.price,
    verbs.ALIAS_MODEL: lambda admin: admin.models.alias,
    verbs.ADD_MODEL: lambda admin: admin.models.add,
    verbs.VERIFY_MODEL: lambda admin: admin.models.verify,
    verbs.REMOVE_MODEL: lambda admin: admin.models.remove,
    verbs.ADD_FROM_HUB: lambda admin: admin.downloads.add,
    verbs.PULL_MODEL: lambda admin: admin.downloads.pull,
    verbs.LIST_DOWNLOADS: lambda admin: admin.downloads.all,
    verbs.SHOW_DOWNLOAD: lambda admin: admin.downloads.show,
    verbs.CANCEL_DOWNLOAD: lambda admin: admin.downloads.cancel,
    verbs.LIST_ADDITIONS: lambda admin: admin.models.additions.all,
    verbs.CANCEL_ADDITION: lambda admin: admin.models.additions.cancel,
    verbs.LIST_ENGINES: lambda admin: admin.engines.all,
    verbs.LOAD_MODEL: lambda admin: admin.engines.load,
    verbs.UNLOAD_MODEL: lambda admin: admin.engines.unload,
    verbs.PIN_MODEL: lambda admin: admin.engines.pin,
    verbs.BACK_UP: lambda admin: admin.books.back_up,
    verbs.LIST_BACKUPS: lambda admin: admin.books.backups,
    verbs.DOCTOR: lambda admin: admin.doctor.report,
    verbs.USAGE: lambda admin: admin.usage.report,
}
"""Every verb except `STATS`, `HISTORY` and `LOG`, which describe a running server."""


class Local:
    """An operator that works on the data directory in this process."""

    def __init__(self, admin: "OperatorApi") -> None:
        self._admin = admin

    def do(
        self,
        verb: Verb[T],
        *names: str,
        order: msgspec.Struct | None = None,
        watch: Watch[Any] | None = None,
    ) -> T:
        """Return what the method answers that the verb is paired with.

        Raises:
            ApplianceError: the method refuses.
        """
        arguments = names if order is None else (*names, order)
        if verb.method == "GET":
            return cast("T", asyncio.run(ACTS[verb](self._admin)(*arguments)))
        outcome, target = "refused", names
        try:
            work = ACTS[verb](self._admin)(*arguments)
            if watch is not None:
                work = watched(
                    work, partial(ACTS[watch.verb](self._admin), *watch.names), watch.show
                )
            done = asyncio.run(work)
            outcome = "done"
            if not names and isinstance(found := getattr(done, "id", None), str):
                target = (found,)
        except ApplianceError as error:
            outcome = f"refused ({error.code or error.message})"
            raise
        finally:
            self._admin.audit_log.note(
                who=this_user("command line"),
                what=verbs.name_of(verb.method, verb.path),
                outcome=outcome,
                target=target,
                order=facts_of(order),
            )
        return cast("T", done)


@contextmanager
def opened(directory: DataDir) -> Iterator[Local]:
    """Yield an operator of a data directory, which is locked until the end of the block.

    Raises:
        DataDirBusy: another process owns it.
        StoreFailed: its database cannot be opened.
    """
    # Imported late: these load numpy and SQLite, which a command to a running server does not need.
    from appliance import settings  # noqa: PLC0415
    from appliance.admin.models import Models  # noqa: PLC0415
    from appliance.admin.operator_api import OperatorApi  # noqa: PLC0415
    from appliance.core.clock import SystemClock  # noqa: PLC0415
    from appliance.core.limits import Limits  # noqa: PLC0415
    from appliance.engine.screening import Screening  # noqa: PLC0415
    from appliance.hub.downloads import Downloads  # noqa: PLC0415
    from appliance.ledger.backup_schedule import BackupSchedule  # noqa: PLC0415
    from appliance.ledger.books import open_books  # noqa: PLC0415

    limits = Limits()
    with directory.locked(), open_books(directory, SystemClock(), limits) as books:
        chosen = settings.load(directory.path, {})
        schedule = BackupSchedule(directory, chosen.backup, books.clock)
        downloads, models = Downloads(books.clock), Models.read(directory)
        screening = (
            None if chosen.fake_engine else Screening.over(directory, models.digests, chosen.engine)
        )
        admin = OperatorApi.over(
            directory, books, models, schedule, limits, downloads, chosen, screening=screening
        )
        try:
            yield Local(admin)
        finally:
            if screening is not None:
                screening.close()
            downloads.close()
