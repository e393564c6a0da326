"""Verbs: what the command line asks of the operator's API, a line for each.

Owns the pairing of an admin endpoint with the method that it calls, so that a command does the same
with a server running and without one.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from appliance.wire.books import BackupList, BackupView
from appliance.wire.doctor import Report
from appliance.wire.downloads import CheckView, DownloadView, RemovedView
from appliance.wire.engines import EngineList, EngineView
from appliance.wire.keys import KeyList, KeyView, MintedKey, RotatedKey
from appliance.wire.models import ModelList, ModelView
from appliance.wire.usage import UsageReport

if TYPE_CHECKING:
    from appliance.admin.operator_api import OperatorApi

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verb(Generic[T]):
    """One thing that an operator does."""

    method: str
    path: str
    """Below `/admin/v1`; each `{}` takes a name."""
    answer: type[T]
    act: "Callable[[OperatorApi], Callable[..., Coroutine[Any, Any, T]]]"
    """Finds the method that does it: it takes the names, then the order if there is one."""


MINT = Verb("POST", "/keys", MintedKey, lambda admin: admin.keys.mint)
LIST_KEYS = Verb("GET", "/keys", KeyList, lambda admin: admin.keys.all)
SHOW_KEY = Verb("GET", "/keys/{}", KeyView, lambda admin: admin.keys.show)
TOP_UP = Verb("POST", "/keys/{}/topup", KeyView, lambda admin: admin.keys.top_up)
REVOKE = Verb("POST", "/keys/{}/revoke", KeyView, lambda admin: admin.keys.revoke)
ROTATE = Verb("POST", "/keys/{}/rotate", RotatedKey, lambda admin: admin.keys.rotate)
EXPIRE = Verb("POST", "/keys/{}/expire", KeyView, lambda admin: admin.keys.expire)
FORGET = Verb("DELETE", "/keys/{}", KeyView, lambda admin: admin.keys.forget)
LIST_MODELS = Verb("GET", "/models", ModelList, lambda admin: admin.models.all)
SHOW_MODEL = Verb("GET", "/models/{}", ModelView, lambda admin: admin.models.show)
PRICE_MODEL = Verb("POST", "/models/price", ModelView, lambda admin: admin.models.price)
ALIAS_MODEL = Verb("POST", "/models/alias", ModelView, lambda admin: admin.models.alias)
ADD_MODEL = Verb("POST", "/models", ModelView, lambda admin: admin.models.add)
VERIFY_MODEL = Verb("POST", "/models/verify", CheckView, lambda admin: admin.models.verify)
REMOVE_MODEL = Verb("POST", "/models/remove", RemovedView, lambda admin: admin.models.remove)
ADD_FROM_HUB = Verb("POST", "/downloads/catalog", ModelView, lambda admin: admin.downloads.add)
PULL_MODEL = Verb("POST", "/downloads", DownloadView, lambda admin: admin.downloads.pull)
SHOW_DOWNLOAD = Verb("GET", "/downloads/{}", DownloadView, lambda admin: admin.downloads.show)
CANCEL_DOWNLOAD = Verb(
    "DELETE", "/downloads/{}", DownloadView, lambda admin: admin.downloads.cancel
)
LIST_ENGINES = Verb("GET", "/engines", EngineList, lambda admin: admin.engines.all)
LOAD_MODEL = Verb("POST", "/engines/load", EngineView, lambda admin: admin.engines.load)
UNLOAD_MODEL = Verb("POST", "/engines/unload", EngineView, lambda admin: admin.engines.unload)
PIN_MODEL = Verb("POST", "/engines/pin", EngineView, lambda admin: admin.engines.pin)
BACK_UP = Verb("POST", "/backup", BackupView, lambda admin: admin.books.back_up)
LIST_BACKUPS = Verb("GET", "/backup", BackupList, lambda admin: admin.books.backups)
DOCTOR = Verb("GET", "/doctor", Report, lambda admin: admin.doctor.report)
USAGE = Verb(
    "GET", "/usage?by={}&since={}&key={}&model={}", UsageReport, lambda admin: admin.usage.report
)
