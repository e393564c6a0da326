"""Models: what an operator does with models: list, show and add.

Owns the catalogue as it stands now.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from appliance.admin.additions import Additions
from appliance.catalog.addition import Addition
from appliance.catalog.catalog import BUILTIN, Catalog, load, shipped_path
from appliance.catalog.entry_edit import EntryEdit
from appliance.catalog.headers import header_of
from appliance.catalog.leftovers import Leftovers
from appliance.catalog.limit import limit_reason_of_file
from appliance.catalog.spec import ModelSpec
from appliance.catalog.user_catalog import UserCatalog, remove
from appliance.core.errors import (
    InvalidCatalog,
    InvalidModelFile,
    InvalidRequest,
    ModelNotFound,
    ModelNotServed,
)
from appliance.engine.screening import CancellableScreen, trusted
from appliance.engine.tuning import Tuning
from appliance.scheduler.model_status import ModelStatus, OfflineStatus, file_reason
from appliance.settings import EngineSettings
from appliance.store.datadir import DataDir
from appliance.store.digests import Digests, sha256_of
from appliance.store.incoming import require_noted, sweep
from appliance.wire.downloads import CheckView, RemovedView
from appliance.wire.models import (
    AddModelOrder,
    AliasOrder,
    ModelList,
    ModelOrder,
    ModelView,
    PriceOrder,
    PriceView,
    TuningView,
)

MODELS_BORN = 1_767_225_600
"""`created` of every model: OpenAI's clients need a number, and a file has no such date."""


log = logging.getLogger("gigarouter.models")


@dataclass(slots=True)
class Models:
    """The current catalogue; it is replaced as a whole when the user's file changes."""

    directory: DataDir
    catalog: Catalog
    digests: Digests
    on_change: Callable[[], None] = lambda: None
    """Called after each change of the catalogue, on the thread that made it."""
    fault: InvalidCatalog | None = None
    """Why the user's file cannot be read; `catalog` is what ships then. None: it can."""
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(cls, directory: DataDir) -> "Models":
        """Read both files, and remove what an unfinished change left; hold the directory's lock.

        Keys, books and the shipped models do not depend on the user's file: when that is wrong, the
        shipped models alone are served, and `fault` says why.

        Raises:
            InvalidCatalog: the shipped file is wrong.
        """
        digests, fault = Digests(directory.models / "digests.json"), None
        try:
            catalog = _read(directory)
        except InvalidCatalog as error:
            catalog, fault = load(shipped_path(), None, directory.models), error
            log.error("%s Until then only the shipped models are served.", error.message)  # noqa: TRY400 - an operator's mistake, and the message says where
        sweep(directory.incoming)
        Leftovers(directory.models).sweep(None if fault else catalog)
        return cls(directory, catalog, digests, fault=fault)

    @property
    def user_catalog(self) -> UserCatalog:
        """Return the user's own file."""
        return UserCatalog(self.directory.catalog, self.directory.models)

    def reread(self) -> None:
        """Read both files again; on an error the old catalogue stays."""
        with self._reading:  # the last to read it has read the newest
            self.catalog = _read(self.directory)
            self.fault = None
        self.on_change()

    def find(self, name: str) -> ModelSpec:
        """Return the model with this id or alias.

        Raises:
            ModelNotFound: no model has it.
            InvalidCatalog: no shipped model has it, and the user's file cannot be read.
        """
        try:
            return self.catalog.find(name)
        except ModelNotFound:
            if self.fault is not None:
                raise self.fault from None
            raise


def _read(directory: DataDir) -> Catalog:
    return load(shipped_path(), directory.catalog, directory.models)


class ModelAdmin:
    """The operator's verbs for models."""

    def __init__(
        self,
        models: Models,
        status: ModelStatus | None = None,
        screen: CancellableScreen = trusted,
    ) -> None:
        """Wire it; without `status` no server runs, and no model was tried."""
        self._models = models
        self._status = status or OfflineStatus(models.directory.models, EngineSettings())
        self._screen = screen
        self.additions = Additions()

    @property
    def fault(self) -> str | None:
        """Return why the user's own models are not served, or None if they are."""
        return self._models.fault.message if self._models.fault else None

    @property
    def catalog(self) -> Catalog:
        """Return every model as the catalogue stands now."""
        return self._models.catalog

    def loaded(self) -> int:
        """Return how many models can compute now."""
        return sum(self._status.is_loaded(spec) for spec in self._models.catalog)

    async def all(self) -> ModelList:
        """Return every model with its prices."""
        # Reads the headers of files that are new: not on the loop's thread.
        await asyncio.to_thread(lambda: [self._status.tokens_max(s) for s in self._models.catalog])
        return ModelList(object="list", data=[self.view(s) for s in self._models.catalog])

    async def damaged(self) -> dict[str, str]:
        """Return what is wrong with models' files: cut off, no model at all, or gone for good.

        One that the hub has is fetched, and is not gone.
        """

        def look() -> dict[str, str]:
            found = {}
            for spec in self._models.catalog:
                try:
                    gone = file_reason(spec)
                    if gone is None:
                        header_of(spec.path)
                    elif spec.entry.source is None:
                        found[spec.id] = gone
                except (InvalidModelFile, OSError) as error:
                    found[spec.id] = str(error)
            return found

        return await asyncio.to_thread(look)

    async def all_and_fault(self) -> ModelList:
        """Return the same for the operator, who is told why the user's own models are missing."""
        return ModelList(object="list", data=(await self.all()).data, warning=self.fault)

    async def show(self, name: str) -> ModelView:
        """Return one model, by id or alias.

        Raises:
            ModelNotFound: no model has this name.
        """
        spec = self._models.find(name)
        view = self.view(spec)
        if view.available and (reason := await asyncio.to_thread(limit_reason_of_file, spec)):
            return msgspec.structs.replace(view, available=False, reason=reason)
        return view

    async def add(self, order: AddModelOrder) -> ModelView:
        """Copy or convert a local model into the user's catalogue, and try it before it counts.

        Raises:
            InvalidModelFile: the file or folder is damaged or of a kind we do not serve.
            InvalidRequest: the id, the task or the pooling is wrong, or there is such a model.
            InvalidCatalog: the user's file cannot be read.
        """
        addition = Addition(
            self._models.user_catalog,
            Path(order.path),
            self._models.digests,
            self._screen,
            model_id=order.id,
            task=order.task,
            pooling=order.pooling,
            replace=order.replace,
        )
        added = await self.additions.run(
            addition.name,
            order.path,
            lambda running: replace(addition, progress=running.progress).run(),
        )
        await asyncio.to_thread(self._models.reread)
        return self.view(self._models.catalog.find(added.id), notes=added.notes)

    def require_noted(self, order: AddModelOrder) -> None:
        """Refuse an order that came over HTTP and was not noted on this machine.

        Raises:
            InvalidRequest: the same whatever lies at the path; `param` is `path`.
        """
        require_noted(self._models.directory.incoming, order.path, order.note)

    async def price(self, order: PriceOrder) -> ModelView:
        """Change what a model costs; calls whose price is held already keep it.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: a price is no number, or none that the books can carry.
        """
        return await self._change(
            order.id,
            lambda edit, name: edit.set_price(name, realtime=order.realtime, batch=order.batch),
        )

    async def alias(self, order: AliasOrder) -> ModelView:
        """Change which other names a model answers to.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: a name is none, or another model's.
        """
        return await self._change(
            order.id, lambda edit, name: edit.set_aliases(name, order.aliases)
        )

    async def _change(self, name: str, change: Callable[[EntryEdit, str], None]) -> ModelView:
        """Change a model's entry and return what it is then."""
        self._require_mended()
        found = self._models.find(name).id
        await asyncio.to_thread(change, EntryEdit(self._models.user_catalog), found)
        await asyncio.to_thread(self._models.reread)
        return self.view(self._models.find(found))

    def _require_mended(self) -> None:
        """Read a file again that could not be read, and refuse to change it if it still cannot.

        Raises:
            InvalidCatalog: as said.
        """
        if self._models.fault is not None:
            self._models.reread()

    async def verify(self, order: ModelOrder) -> CheckView:
        """Hash a model's file and hold it against the catalogue.

        Raises:
            ModelNotFound: no model has this name.
            ModelNotServed: its file is not here.
        """
        spec = self._models.find(order.id)
        missing = file_reason(spec)
        if missing is not None:
            raise ModelNotServed(model=spec.id, reason=missing)
        digest = await asyncio.to_thread(sha256_of, spec.path)
        wanted = spec.entry.sha256
        return CheckView(
            id=spec.id,
            file=spec.path.name,
            bytes=spec.path.stat().st_size,
            sha256=digest,
            matches=None if wanted is None else digest == wanted,
        )

    async def remove(self, order: ModelOrder) -> RemovedView:
        """Remove a model's file; an entry that says where it came from stays, and can be pulled.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: it is built in, loaded, or another model needs the file.
        """
        self._require_mended()
        spec = self._models.find(order.id)
        if spec.entry.file.startswith(BUILTIN):
            raise InvalidRequest(f"{spec.id} is built in; it cannot be removed", param="id")
        if self._status.is_loaded(spec):
            raise InvalidRequest(f"{spec.id} is loaded; unload it first", param="id")
        sharing = [
            other.id
            for other in self._models.catalog
            if other.path == spec.path and other.id != spec.id
        ]
        if sharing:
            raise InvalidRequest(f"{sharing[0]} needs the same file", param="id")
        return await asyncio.to_thread(self._remove, spec)

    def _remove(self, spec: ModelSpec) -> RemovedView:
        size = _freed_by_unlinking(spec.path)
        user_catalog, leftovers = (
            self._models.user_catalog,
            Leftovers(self._models.directory.models),
        )
        # Of an entry without a source nothing would be left but a name.
        goes = spec.entry.source is None
        with user_catalog.changing():
            note = leftovers.note([spec.path])
            try:
                if goes:
                    with user_catalog.draft(lambda document: remove(document, spec.id)):
                        pass
            finally:
                with suppress(InvalidCatalog):  # somebody edits it now: the next start settles it
                    catalog = [
                        each for each in user_catalog.current() if goes or each.id != spec.id
                    ]
                    leftovers.settle(note, catalog)
        self._models.reread()
        return RemovedView(
            id=spec.id,
            freed=0 if spec.path.exists() else size,
            in_catalog=any(other.id == spec.id for other in self._models.catalog),
        )

    def view(self, spec: ModelSpec, *, notes: Sequence[str] = ()) -> ModelView:
        """Return what is shown of a model; `notes` are what its addition assumed."""
        entry = spec.entry
        reason = self._status.reason(spec)
        size = _size_here(spec)
        return ModelView(
            id=spec.id,
            object="model",
            created=MODELS_BORN,
            owned_by=spec.id.partition("/")[0],
            task=spec.task,
            params=entry.params,
            pricing=PriceView(
                realtime=spec.tariff.realtime,
                batch=spec.tariff.batch,
                unit=spec.tariff.unit,
                tokens_per_document=entry.price.tokens_per_document,
            ),
            available=reason is None,
            loaded=self._status.is_loaded(spec),
            max_input_tokens=self._status.tokens_max(spec),
            license=entry.license,
            description=entry.description,
            aliases=entry.aliases,
            quantization=entry.quantization,
            dimensions=entry.dimensions,
            size_bytes=size if size is not None or not entry.source else entry.source.bytes,
            matryoshka=entry.matryoshka or None,
            prompts=msgspec.to_builtins(entry.prompts) if entry.prompts else None,
            reason=reason,
            missing=size is None,
            tuning=_tuning_view(self._status.tuning(spec)),
            notes=tuple(notes),
        )


def _freed_by_unlinking(path: Path) -> int:
    """Return how many bytes the disk has more without a name of a file; 0 if it has others."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if found.st_nlink == 1 else 0


def _size_here(spec: ModelSpec) -> int | None:
    try:
        return spec.path.stat().st_size
    except OSError:
        return None


def _tuning_view(tuning: Tuning | None) -> TuningView | None:
    return msgspec.convert(tuning, TuningView, from_attributes=True) if tuning else None
