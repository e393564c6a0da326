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
from tomlkit.exceptions import TOMLKitError

from appliance.catalog.catalog import Catalog, load, read_text, shipped_path
from appliance.core.errors import InvalidCatalog, InvalidRequest
from appliance.store.datadir import write_private

MODEL = "model"
"""The key of the tables."""


class DoesNotFit(Exception):
    """After a change the file would not be valid together with the shipped catalogue."""


_writing = threading.RLock()
"""Held while the file is changed, and for nothing that takes long: adds and downloads change it
from threads of their own."""


@dataclass(frozen=True, slots=True)
class UserCatalog:
    """The user's `models.toml` and the folder of model files."""

    path: Path
    models: Path

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let no other thread change the file during the block."""
        with _writing:
            yield

    @contextmanager
    def draft(self, change: Callable[[Any], None]) -> Iterator[Catalog]:
        """Yield the catalogue after a change; the file is replaced unless the block raises.

        Raises:
            InvalidCatalog: the file is invalid already; it is not changed.
            DoesNotFit: the file would be invalid after the change.
        """
        with _writing:
            text = self._changed(change)
            yield self._read(text)
            write_private(self.path, text.encode())

    def preview(self, change: Callable[[Any], None]) -> Catalog:
        """Return the catalogue as it would be after a change.

        Raises:
            InvalidCatalog: the file is invalid already.
            DoesNotFit: the file would be invalid after the change.
        """
        with _writing:
            return self._read(self._changed(change))

    def current(self) -> Catalog:
        """Return the catalogue as the files are now.

        Raises:
            InvalidCatalog: one of them is wrong.
        """
        return load(shipped_path(), self.path, self.models)

    def _read(self, text: str) -> Catalog:
        try:
            return load(shipped_path(), self.path, self.models, draft=text)
        except InvalidCatalog as error:
            raise DoesNotFit(f"{error.where}: {error.reason}") from None

    def _changed(self, change: Callable[[Any], None]) -> str:
        document = self._document()
        change(document)
        if MODEL in document and not document[MODEL]:
            # An emptied list of tables would be written as `model = []`, to which no table can be
            # added.
            document.remove(MODEL)
        return tomlkit.dumps(document)

    def _document(self) -> Any:
        """Return the parsed file, or a new document if there is no file."""
        if self.path.exists():
            self.current()  # a file that is invalid is never rewritten
            try:
                return _with_tables(tomlkit.parse(read_text(self.path)))
            except TOMLKitError as error:
                raise InvalidCatalog(self.path, "file", str(error)) from None
        document = tomlkit.document()
        document.add(tomlkit.comment("Your own models; laid over the shipped catalogue."))
        document["schema"] = 1
        return document


def _with_tables(document: Any) -> Any:
    """Write `model = [...]`, which TOML allows as well, as the tables that it stands for."""
    found = document.get(MODEL)
    if found is None or isinstance(found, tomlkit.items.AoT):
        return document
    tables = tomlkit.aot()
    for each in found.unwrap():
        table = tomlkit.table()
        for key, value in each.items():
            table[key] = _inline(value)
        tables.append(table)
    document.remove(MODEL)
    if tables:
        document[MODEL] = tables
    return document


def _inline(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    table = tomlkit.inline_table()
    table.update(value)
    return table


def require_free(catalog: Catalog, name: str, *, replace: bool) -> None:
    """Refuse the id of a model that is there already, unless that is to be replaced.

    Raises:
        InvalidRequest: as said; `param` is `id`.
    """
    spec = next((each for each in catalog if each.id == name), None)
    if spec is not None and not replace:
        raise InvalidRequest(
            f"there is a model {name} already; use --replace or another --id", param="id"
        )


def put(document: Any, entry: Mapping[str, Any]) -> None:
    """Add an entry; one with the same id is replaced, in its place."""
    table = table_of(document, entry["id"])
    comments = _last_comments(table)
    for key in [key for key in table if key not in entry]:
        del table[key]
    for key, value in entry.items():
        if key not in table or table[key] != value:
            table[key] = value
    if _last_comments(table) != comments:  # they were below a table that is gone
        for comment in comments:
            table.add(tomlkit.comment(comment))


def _last_comments(table: Any) -> list[str]:
    """Return the comments at the end of an entry; TOML counts those above the next one to it."""
    found: list[str] = []
    for line in reversed(table.as_string().splitlines()):
        text = line.strip()
        if text and not text.startswith("#"):
            break
        if text:
            found.insert(0, text.lstrip("# "))
    return found


def remove(document: Any, name: str) -> None:
    """Remove the entry with this id, if there is one."""
    tables = document.get(MODEL, ())
    for index, table in enumerate(tables):
        if table.get("id") == name:
            comments = _last_comments(table)
            del tables[index]
            for comment in comments:
                (tables[index - 1] if index else document).add(tomlkit.comment(comment))
            return


def find(document: Any, name: str) -> Mapping[str, Any]:
    """Return what the entry with this id says, without comments; empty if there is none."""
    for table in document.get(MODEL, ()):
        if table.get("id") == name:
            found: dict[str, Any] = table.unwrap()
            return found
    return {}


def table_of(document: Any, name: str) -> Any:
    """Return the entry with this id; a new one is added if there is none."""
    if MODEL not in document:
        document[MODEL] = tomlkit.aot()
    tables = document[MODEL]
    for table in tables:
        if table.get("id") == name:
            return table
    table = tomlkit.table()
    table["id"] = name
    tables.append(table)
    return tables[-1]
