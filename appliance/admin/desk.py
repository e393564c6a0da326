"""Desk: the operator's verbs, grouped by what they act on.

Owns nothing but the grouping. The server offers it over HTTP and the command line uses it directly
when no server runs, so both do the same.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from appliance.admin.books import BooksAdmin
from appliance.admin.keys import KeyAdmin
from appliance.admin.models import ModelAdmin
from appliance.admin.usage import UsageAdmin


@dataclass(frozen=True, slots=True)
class Admin:
    """Everything an operator can do."""

    keys: KeyAdmin
    models: ModelAdmin
    books: BooksAdmin
    usage: UsageAdmin


def program_version() -> str:
    """Return this program's version, `"0"` when it runs uninstalled."""
    try:
        return version("gigarouter")
    except PackageNotFoundError:
        return "0"
