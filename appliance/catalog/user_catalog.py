"""User catalogue: change the user's `models.toml` and keep its comments and order.

Every write goes through a draft, which must be valid together with the shipped catalogue and then
replaces the file in one step. One thread writes at a time.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from appliance.catalog.catalog import Catalog, load, read_tables, shipped_path
from appliance.core.errors import InvalidCatalog
from appliance.store.datadir import sync_directory, write_private


class DoesNotFit(Exception):
    """After a change the file would not be valid together with the shipped catalogue."""


_writing = threading.Lock()
"""Held while the file is changed: downloads do so from their own threads."""


@dataclass(frozen=True, slots=True)
class UserCatalog:
    """The user's `models.toml` and the folder of model files."""

    path: Path
    models: Path

    @contextmanager
    def draft(self, change: Callable[[Any], None]) -> Iterator[Catalog]:
        """Yield the catalogue after a change; the file is replaced unless the block raises.

        Raises:
            InvalidCatalog: the file is invalid already; it is not changed.
            DoesNotFit: the file would be invalid after the change.
        """
        draft = self.path.with_name(self.path.name + ".draft")
        with _writing:
            try:
                document = self._document()
                change(document)
                write_private(draft, tomlkit.dumps(document).encode())
                yield self._read(draft)
                draft.replace(self.path)
                sync_directory(self.path.parent)
            finally:
                draft.unlink(missing_ok=True)

    def _read(self, draft: Path) -> Catalog:
        try:
            return load(shipped_path(), draft, self.models)
        except InvalidCatalog as error:
            raise DoesNotFit(error.message) from None

    def _document(self) -> Any:
        """Return the parsed file, or a new document if there is no file."""
        if self.path.exists():
            read_tables(self.path)  # a file that is invalid is never rewritten
            return tomlkit.parse(self.path.read_text(encoding="utf-8"))
        document = tomlkit.document()
        document.add(tomlkit.comment("Your own models; laid over the shipped catalogue."))
        document["schema"] = 1
        return document


def put(document: Any, entry: Mapping[str, Any]) -> None:
    """Add an entry; one with the same id is replaced."""
    remove(document, entry["id"])
    table = tomlkit.table()
    for key, value in entry.items():
        table[key] = value
    document.setdefault("model", tomlkit.aot()).append(table)


def remove(document: Any, name: str) -> None:
    """Remove the entry with this id, if there is one."""
    tables = document.setdefault("model", tomlkit.aot())
    for index, table in enumerate(tables):
        if table.get("id") == name:
            del tables[index]
            return


def table_of(document: Any, name: str) -> Any:
    """Return the entry with this id; a new one is added if there is none."""
    tables = document.setdefault("model", tomlkit.aot())
    for table in tables:
        if table.get("id") == name:
            return table
    table = tomlkit.table()
    table["id"] = name
    tables.append(table)
    return tables[-1]
