"""Verbs: every request of the operator's API, a line for each.

Owns method, path, types and time limit of each request. The command line, the console and the
tests of the routes all read this table.
"""

import re
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from appliance.wire.additions import AdditionList, AdditionView
from appliance.wire.books import BackupList, BackupOrder, BackupView
from appliance.wire.doctor import Report
from appliance.wire.downloads import (
    CheckView,
    DownloadList,
    DownloadView,
    HubModelOrder,
    RemovedView,
)
from appliance.wire.engines import EngineList, EngineView, PinOrder
from appliance.wire.keys import (
    ExpireOrder,
    KeyList,
    KeyView,
    LimitOrder,
    MintedKey,
    MintOrder,
    RotatedKey,
    RotateOrder,
    TopUpOrder,
)
from appliance.wire.logs import LogView
from appliance.wire.models import (
    AddModelOrder,
    AliasOrder,
    ModelList,
    ModelOrder,
    ModelView,
    PriceOrder,
    TrialRunView,
    TrialView,
    TryOrder,
)
from appliance.wire.stats import ModelHistory, Stats
from appliance.wire.usage import UsageReport

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PREFIX = "/admin/v1"
POLL_S = 5.0
"""Seconds for what the console asks again and again."""
WRITE_S = 120.0
"""Seconds for a change of the books: one that is given up may be written all the same."""
LOOK_S = 60.0
"""Seconds for what reads files, devices or a long history."""
LONG_S = 620.0
"""Seconds for what copies, hashes, converts or loads a model, which may have gigabytes."""

TRY_S = 24 * 3600.0
"""Seconds for a trial of long sequences, which is cancelled by whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Verb(Generic[T_co]):
    """One request of the operator's API."""

    method: str
    path: str
    """Below `PREFIX`; each `{}` takes a name."""
    answer: type[T_co]
    order: type[msgspec.Struct] | None = None
    """Type of the body; None: there is none."""
    query: tuple[str, ...] = ()
    """Names of the query's parameters, filled in after those of the path."""
    deadline_s: float = LOOK_S
    """Seconds from the request to the whole answer."""


MINT = Verb("POST", "/keys", MintedKey, MintOrder, deadline_s=WRITE_S)
LIST_KEYS = Verb("GET", "/keys", KeyList, deadline_s=POLL_S)
SHOW_KEY = Verb("GET", "/keys/{}", KeyView)
TOP_UP = Verb("POST", "/keys/{}/topup", KeyView, TopUpOrder, deadline_s=WRITE_S)
REVOKE = Verb("POST", "/keys/{}/revoke", KeyView, deadline_s=WRITE_S)
ROTATE = Verb("POST", "/keys/{}/rotate", RotatedKey, RotateOrder, deadline_s=WRITE_S)
EXPIRE = Verb("POST", "/keys/{}/expire", KeyView, ExpireOrder, deadline_s=WRITE_S)
LIMIT = Verb("POST", "/keys/{}/limits", KeyView, LimitOrder, deadline_s=WRITE_S)
FORGET = Verb("DELETE", "/keys/{}", KeyView, deadline_s=LONG_S)
LIST_MODELS = Verb("GET", "/models", ModelList, deadline_s=POLL_S)
SHOW_MODEL = Verb("GET", "/models/{}", ModelView)
ADD_MODEL = Verb("POST", "/models", ModelView, AddModelOrder, deadline_s=LONG_S)
PRICE_MODEL = Verb("POST", "/models/price", ModelView, PriceOrder)
ALIAS_MODEL = Verb("POST", "/models/alias", ModelView, AliasOrder)
VERIFY_MODEL = Verb("POST", "/models/verify", CheckView, ModelOrder, deadline_s=LONG_S)
TRY_MODEL = Verb("POST", "/models/try", TrialView, TryOrder, deadline_s=TRY_S)
WATCH_TRIAL = Verb("GET", "/trials/{}", TrialRunView, deadline_s=POLL_S)
REMOVE_MODEL = Verb("POST", "/models/remove", RemovedView, ModelOrder, deadline_s=LONG_S)
ADD_FROM_HUB = Verb("POST", "/downloads/catalog", ModelView, HubModelOrder, deadline_s=LONG_S)
PULL_MODEL = Verb("POST", "/downloads", DownloadView, ModelOrder)
LIST_DOWNLOADS = Verb("GET", "/downloads", DownloadList, deadline_s=POLL_S)
SHOW_DOWNLOAD = Verb("GET", "/downloads/{}", DownloadView)
CANCEL_DOWNLOAD = Verb("DELETE", "/downloads/{}", DownloadView)
LIST_ADDITIONS = Verb("GET", "/additions", AdditionList, deadline_s=POLL_S)
CANCEL_ADDITION = Verb("DELETE", "/additions/{}", AdditionView)
LIST_ENGINES = Verb("GET", "/engines", EngineList, deadline_s=POLL_S)
LOAD_MODEL = Verb("POST", "/engines/load", EngineView, ModelOrder, deadline_s=LONG_S)
UNLOAD_MODEL = Verb("POST", "/engines/unload", EngineView, ModelOrder, deadline_s=LONG_S)
PIN_MODEL = Verb("POST", "/engines/pin", EngineView, PinOrder)
BACK_UP = Verb("POST", "/backup", BackupView, BackupOrder, deadline_s=LONG_S)
LIST_BACKUPS = Verb("GET", "/backup", BackupList)
DOCTOR = Verb("GET", "/doctor", Report, query=("hub",), deadline_s=LOOK_S)
USAGE = Verb("GET", "/usage", UsageReport, query=("by", "since", "key", "model"), deadline_s=LOOK_S)
STATS = Verb("GET", "/stats", Stats, query=("span",), deadline_s=POLL_S)
HISTORY = Verb("GET", "/history", ModelHistory, query=("span", "model"), deadline_s=POLL_S)
LOG = Verb("GET", "/log", LogView, query=("after",), deadline_s=POLL_S)


_NAMES = {
    (verb.method, verb.path): name.lower()
    for name, verb in list(globals().items())
    if isinstance(verb, Verb)
}
_PARAMETER = re.compile(r"\{[^{}]*\}")


def name_of(method: str, template: str) -> str:
    """Return a verb's name by its method and the template of its path, as in `top_up`.

    What is no verb is called by both.
    """
    path = _PARAMETER.sub("{}", template).removeprefix(PREFIX).rstrip("/")
    return _NAMES.get((method, path), f"{method} {path}")


def target(verb: Verb[T], names: tuple[str, ...]) -> str:
    """Return path and query of a request, with its names filled in and quoted."""
    count = verb.path.count("{}")
    assert len(names) == count + len(verb.query), verb
    # An empty name would make another path of it.
    path = PREFIX + verb.path.format(*(quote(name, safe="") or "-" for name in names[:count]))
    if not verb.query:
        return path
    return f"{path}?{urlencode(dict(zip(verb.query, names[count:], strict=True)))}"
