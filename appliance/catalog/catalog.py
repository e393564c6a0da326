"""Catalogue: every model that could be served, shipped and the user's own.

Owns reading `models.toml`, laying the user's file over the shipped one, and finding a model by
name.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from appliance.catalog.spec import ModelEntry, ModelSpec, checked_tariff
from appliance.core.errors import InvalidCatalog, InvalidRequest, ModelNotFound, WrongTask
from appliance.pricing.tariff import TIERS, TaskKind
from appliance.store.regular_file import open_regular

BUILTIN = "builtin:"
SCHEMA = 1
MODELS_MAX = 10_000
NEAR_MAX = 3
"""Similar ids that an error about an unknown model names."""
DEFAULTS_NAMED_MAX = 5
"""Models that a call which names none is told of."""
NEAR_NAMES_MAX = 50
"""Names from which these are chosen: several of them may be names of one model."""

PACKAGE = Path(__file__).resolve().parent.parent
STARTER = PACKAGE / "starter"


def shipped_path() -> Path:
    """Return the shipped `models.toml`: inside an installed package, else at the project's root."""
    inside = PACKAGE / "models.toml"
    return inside if inside.exists() else PACKAGE.parent / "models.toml"


class Catalog:
    """Models by id and alias."""

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        self._specs = {spec.id: spec for spec in specs}
        self._names = {alias: spec for spec in specs for alias in spec.entry.aliases}
        self._names.update(self._specs)
        self._folded = {name.casefold(): spec for name, spec in self._names.items()}

    def __repr__(self) -> str:
        """Count what is listed."""
        return f"<Catalog [{len(self._specs)} models]>"

    def __iter__(self) -> Iterator[ModelSpec]:
        """Yield every model in the order of the files."""
        return iter(self._specs.values())

    def find(self, name: str) -> ModelSpec:
        """Return the model with this id or alias; letter case does not matter.

        Raises:
            ModelNotFound: no model has it; the message names similar ids.
        """
        spec = self._names.get(name) or self._folded.get(name.casefold())
        if spec is None:
            raise ModelNotFound(model=name[:200], near=self._near(name[:200]))
        return spec

    def _near(self, name: str) -> list[str]:
        """Return the ids of models with a similar name: those whose file is here, then others."""
        names = difflib.get_close_matches(
            name.casefold(), self._folded, n=NEAR_NAMES_MAX, cutoff=0.5
        )
        specs = {self._folded[near].id: self._folded[near] for near in names}
        nearest = sorted(specs.values(), key=lambda spec: not spec.path.exists())
        return [spec.id for spec in nearest[:NEAR_MAX]]

    def resolve(self, name: str, task: TaskKind) -> ModelSpec:
        """Return the model with this name if it does the task.

        Raises:
            ModelNotFound: no model has this name.
            WrongTask: it does something else.
        """
        spec = self.find(name)
        if spec.task != task:
            raise WrongTask(model=spec.id, task=spec.task, asked=task)
        return spec

    def default(
        self, preferred: Sequence[str], served: Sequence[ModelSpec], task: TaskKind
    ) -> ModelSpec:
        """Return the model for calls that name none: the first preferred one, else the only one.

        Raises:
            InvalidRequest: there is none, or several; the message names them.
        """
        for name in preferred:
            spec = self._names.get(name) or self._folded.get(name.casefold())
            if spec is not None and spec in served:
                return spec
        if len(served) == 1:
            return served[0]
        names = " or ".join(spec.id for spec in served[:DEFAULTS_NAMED_MAX])
        raise InvalidRequest(
            f"model is missing, and this server has {names or 'none'} for {task}"
            + (": name one." if served else "."),
            param="model",
        )


def load(shipped: Path, own: Path | None, models: Path, *, draft: str | None = None) -> Catalog:
    """Read the shipped catalogue with the user's own laid over it.

    `models` is the directory to which relative file names of the user's entries belong. With
    `draft`, that text is read in the place of what the user's file holds.

    Raises:
        InvalidCatalog: a file is wrong; names file, model and key.
    """
    try:
        return _loaded(shipped, own, models, draft)
    except InvalidCatalog as error:
        text = draft if draft is not None and error.path == own else read_text(error.path)
        line = _line(text, error.where)
        raise InvalidCatalog(error.path, error.where, error.reason, line=line) from None


def _line(text: str, where: str) -> int | None:
    """Return the line of what an error names, `model ID: key`, or None if it is not found."""
    name, _, key = where.removeprefix("model ").partition(": ")
    lines = text.splitlines()
    named = re.compile(rf"""\s*["']?id["']?\s*=\s*["']{re.escape(name)}["']""")
    at = next((number for number, line in enumerate(lines) if named.match(line)), None)
    if at is None:
        return None
    heads = [number for number, line in enumerate(lines) if line.lstrip().startswith("[[")]
    first = max((number for number in heads if number < at), default=0)
    after = min((number for number in heads if number > at), default=len(lines))
    wanted = re.compile(rf"""\s*["']?{re.escape(re.split("[.[]", key)[0])}["']?\s*[=.]""")
    return next((n for n in range(first, after) if wanted.match(lines[n])), at) + 1


def _loaded(shipped: Path, own: Path | None, models: Path, draft: str | None) -> Catalog:
    entries: dict[str, tuple[ModelEntry, Path]] = {}
    below: dict[str, dict[str, Any]] = {}
    for path in (shipped, own):
        if path is None:
            continue
        tables = _tables(path, draft if path == own else None)
        for name, table in tables.items():
            # A shipped entry is checked by itself first: its faults are not the user's.
            merged = _laid_over(below[name], table) if name in below else table
            entries[name] = (_entry(merged, path), path)
        below = tables
    specs = [_spec(entry, path, models) for entry, path in entries.values()]
    _require_distinct(specs, own or shipped)
    return Catalog(specs)


def read_text(path: Path) -> str:
    """Return the text of a catalogue file, empty if there is none.

    Raises:
        InvalidCatalog: it cannot be read, or is no text.
    """
    try:
        with open_regular(path) as file:
            return file.read().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InvalidCatalog(path, "file", str(error)) from None
    except OSError as error:
        raise InvalidCatalog(path, "file", error.strerror or str(error)) from None


def _tables(path: Path, draft: str | None) -> dict[str, dict[str, Any]]:
    """Return the `[[model]]` tables of one file by id; what they hold is not checked yet.

    Raises:
        InvalidCatalog: it is not TOML, has another schema, or a table has no id of its own.
    """
    if draft is None and not path.is_symlink() and not path.exists():
        return {}
    try:
        # Decimal keeps prices exact; a float would not be what the operator wrote.
        text = read_text(path) if draft is None else draft
        document = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidCatalog(path, "file", str(error)) from None
    unknown = set(document) - {"schema", "model"}
    if unknown:
        raise InvalidCatalog(path, min(unknown), "is not a key of a catalogue")
    if document.get("schema") != SCHEMA:
        raise InvalidCatalog(path, "schema", f"must be {SCHEMA}")
    tables = document.get("model", [])
    if not isinstance(tables, list) or len(tables) > MODELS_MAX:
        raise InvalidCatalog(path, "model", f"must be at most {MODELS_MAX} [[model]] tables")
    found: dict[str, dict[str, Any]] = {}
    for number, table in enumerate(tables, start=1):
        name = table.get("id") if isinstance(table, dict) else None
        if not isinstance(name, str):
            raise InvalidCatalog(path, f"model number {number}: id", "is missing or no text")
        if name in found:
            raise InvalidCatalog(path, f"model {name}: id", "stands twice in this file")
        found[name] = table
    return found


def _laid_over(below: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Return a shipped entry with the user's keys in it.

    One that names a file is about another file, of which nothing of the shipped one may be true.
    """
    if "file" in table:
        return table
    merged = {**below, **table}
    for key in ("price", "source"):
        if isinstance(below.get(key), dict) and isinstance(table.get(key), dict):
            merged[key] = {**below[key], **table[key]}
    return merged


def _entry(table: dict[str, Any], path: Path) -> ModelEntry:
    try:
        return msgspec.convert(_completed(_with_decimals(table)), ModelEntry)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        raise InvalidCatalog(
            path, f"model {table['id']}: {where.rstrip('`') or 'entry'}", reason
        ) from None


def _completed(table: dict[str, Any]) -> dict[str, Any]:
    """Say what follows from a source: the file's name here, and that it is the same file."""
    source = table.get("source")
    if not isinstance(source, dict):
        return table
    named = {"file": file_name(table["id"]), **table}
    if "sha256" in source and source.get("format", "gguf") == "gguf":
        named.setdefault("sha256", source["sha256"])
    return named


def file_name(model_id: str) -> str:
    """Return what a model's file is called in `models/`."""
    return model_id.replace("/", "--") + ".gguf"


def _with_decimals(table: dict[str, Any]) -> dict[str, Any]:
    """Let a price be written `1` as well as `1.0`."""
    price = table.get("price")
    if not isinstance(price, dict):
        return table
    exact = {k: Decimal(v) if type(v) is int and k in TIERS else v for k, v in price.items()}
    return {**table, "price": exact}


def _spec(entry: ModelEntry, source: Path, models: Path) -> ModelSpec:
    try:
        tariff = checked_tariff(entry)
        path = _file_path(entry.file, models)
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise InvalidCatalog(source, f"model {entry.id}: {key}", reason) from None
    return ModelSpec(entry=entry, tariff=tariff, path=path)


def _file_path(name: str, models: Path) -> Path:
    """Resolve a file name inside its own root, so that an entry cannot reach outside."""
    if name.startswith(BUILTIN):
        root, relative = STARTER, name.removeprefix(BUILTIN)
    else:
        root, relative = models, name
    if not name.isprintable():
        raise ValueError(f"file: {name!r} holds a control character")
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"file: {name!r} points outside {root.name}/")
    return path


def _require_distinct(specs: Sequence[ModelSpec], own: Path) -> None:
    # Ids first: an alias that is another model's id is that model's.
    taken: dict[str, str] = {spec.id.casefold(): spec.id for spec in reversed(specs)}
    for spec in specs:
        for name in (spec.id, *spec.entry.aliases):
            other = taken.setdefault(name.casefold(), spec.id)
            if other != spec.id:
                raise InvalidCatalog(own, f"model {spec.id}: aliases", f"{name!r} is {other!r}")
