"""Own: the user's `models.toml`, changed without losing what its writer put there.

Owns every write of that file: through a draft that must be readable together with the shipped
catalogue, in one step, by one thread at a time. Comments and order stay.
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
    """With a change the file could not be read together with the shipped catalogue."""


_writing = threading.Lock()
"""A download that ends writes from its own thread."""


@dataclass(frozen=True, slots=True)
class UserCatalog:
    """The file, and where the files of its entries are."""

    path: Path
    models: Path

    @contextmanager
    def draft(self, change: Callable[[Any], None]) -> Iterator[Catalog]:
        """Yield the catalogue as it will be; the file takes its place unless the block raises.

        Raises:
            InvalidCatalog: the file as it is cannot be read; it is left alone.
            DoesNotFit: with this change it could not be read.
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
        """Return the file, or a new one."""
        if self.path.exists():
            read_tables(self.path)  # never rewrite a file that we cannot read
            return tomlkit.parse(self.path.read_text(encoding="utf-8"))
        document = tomlkit.document()
        document.add(tomlkit.comment("Your own models; laid over the shipped catalogue."))
        document["schema"] = 1
        return document


def put(document: Any, entry: Mapping[str, Any]) -> None:
    """Add an entry, in the place of one with the same id."""
    remove(document, entry["id"])
    table = tomlkit.table()
    for key, value in entry.items():
        table[key] = value
    document.setdefault("model", tomlkit.aot()).append(table)


def remove(document: Any, name: str) -> None:
    """Take an entry out, if there is one."""
    tables = document.setdefault("model", tomlkit.aot())
    for index, table in enumerate(tables):
        if table.get("id") == name:
            del tables[index]
            return


def table_of(document: Any, name: str) -> Any:
    """Return the entry of this id, a new one if there is none."""
    tables = document.setdefault("model", tomlkit.aot())
    for table in tables:
        if table.get("id") == name:
            return table
    table = tomlkit.table()
    table["id"] = name
    tables.append(table)
    return tables[-1]
