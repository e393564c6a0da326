"""Models: what an operator does with models: list, show and add.

Owns the catalogue as it stands now.
"""

import asyncio
import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.catalog.catalog import BUILTIN, Catalog, load, shipped_path
from appliance.catalog.importer import ModelImporter
from appliance.catalog.spec import ModelSpec
from appliance.catalog.user_catalog import UserCatalog, remove
from appliance.core.errors import (
    InvalidModelFile,
    InvalidRequest,
    LoadFailed,
    ModelNotServed,
)
from appliance.engine.screening import Screen, Screening, trusted
from appliance.engine.tuning import Tuning
from appliance.scheduler.model_status import ModelStatus, OfflineStatus, file_reason
from appliance.store.datadir import DataDir
from appliance.store.digests import Digests, sha256_of
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


@dataclass(slots=True)
class Models:
    """The current catalogue; it is replaced as a whole when the user's file changes."""

    directory: DataDir
    catalog: Catalog
    digests: Digests
    on_change: Callable[[], None] = lambda: None
    """Called after each change of the catalogue, on the thread that made it."""

    @classmethod
    def read(cls, directory: DataDir) -> "Models":
        """Read both files.

        Raises:
            InvalidCatalog: one of them is wrong.
        """
        return cls(directory, _read(directory), Digests(directory.models / "digests.json"))

    def reread(self) -> None:
        """Read both files again; on an error the old catalogue stays."""
        self.catalog = _read(self.directory)
        self.on_change()


def _read(directory: DataDir) -> Catalog:
    return load(shipped_path(), directory.catalog, directory.models)


class ModelAdmin:
    """The operator's verbs for models."""

    def __init__(
        self,
        models: Models,
        status: ModelStatus | None = None,
        screen: Screen = trusted,
        screening: Screening | None = None,
    ) -> None:
        self._models = models
        self._status = status or OfflineStatus(models.directory.models, screening)
        self._screening = screening
        self._screen = screen
        self._adding = asyncio.Lock()

    async def all(self) -> ModelList:
        """Return every model with its prices."""
        return ModelList(object="list", data=[self.view(s) for s in self._models.catalog])

    async def show(self, name: str) -> ModelView:
        """Return one model, by id or alias.

        Raises:
            ModelNotFound: no model has this name.
        """
        return self.view(self._models.catalog.find(name))

    async def add(self, order: AddModelOrder) -> ModelView:
        """Copy or convert a local model into the user's catalogue.

        Raises:
            InvalidModelFile: the file or folder is damaged or of a kind we do not serve.
            InvalidRequest: the id or the task is wrong.
        """
        directory = self._models.directory
        importer = ModelImporter(directory.catalog, directory.models)
        async with self._adding:
            name = await asyncio.to_thread(
                importer.add,
                Path(order.path),
                model_id=order.id,
                task=order.task,
                sha256=self._models.digests.sha256,
            )
            self._models.reread()
            spec = self._models.catalog.find(name)
            try:
                await asyncio.to_thread(self._screen, spec)
            except LoadFailed as error:
                await asyncio.to_thread(self._remove, spec)
                raise InvalidModelFile(Path(order.path), error.message) from None
        return self.view(spec)

    async def price(self, order: PriceOrder) -> ModelView:
        """Change what a model costs; calls whose price is held already keep it.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: a price is no number, or none that the books can carry.
        """
        return await self._change(
            order.id,
            lambda importer, name: importer.set_price(
                name, realtime=order.realtime, batch=order.batch
            ),
        )

    async def alias(self, order: AliasOrder) -> ModelView:
        """Change which other names a model answers to.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: a name is none, or another model's.
        """
        return await self._change(
            order.id, lambda importer, name: importer.set_aliases(name, order.aliases)
        )

    async def _change(self, name: str, change: Callable[[ModelImporter, str], None]) -> ModelView:
        """Change a model's entry, one at a time, and return what it is then."""
        directory = self._models.directory
        importer = ModelImporter(directory.catalog, directory.models)
        async with self._adding:
            found = self._models.catalog.find(name).id
            await asyncio.to_thread(change, importer, found)
            self._models.reread()
        return self.view(self._models.catalog.find(found))

    async def verify(self, order: ModelOrder) -> CheckView:
        """Hash a model's file and hold it against the catalogue.

        Raises:
            ModelNotFound: no model has this name.
            ModelNotServed: its file is not here.
        """
        spec = self._models.catalog.find(order.id)
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
        spec = self._models.catalog.find(order.id)
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
        async with self._adding:
            return await asyncio.to_thread(self._remove, spec)

    def _remove(self, spec: ModelSpec) -> RemovedView:
        directory = self._models.directory
        size = spec.path.stat().st_size if spec.path.exists() else 0
        if spec.entry.source is None:
            # Of an entry without a source nothing would be left but a name.
            with UserCatalog(directory.catalog, directory.models).draft(
                lambda document: remove(document, spec.id)
            ):
                pass
        spec.path.unlink(missing_ok=True)
        for beside in directory.models.glob(f"{glob.escape(spec.path.name)}.*.json"):
            beside.unlink()  # how it was tried and measured
        self._models.reread()
        return RemovedView(
            id=spec.id,
            freed=size,
            in_catalog=any(other.id == spec.id for other in self._models.catalog),
        )

    def view(self, spec: ModelSpec) -> ModelView:
        """Return what is shown of a model."""
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
                realtime=spec.tariff.realtime, batch=spec.tariff.batch, unit=spec.tariff.unit
            ),
            available=reason is None,
            loaded=self._status.is_loaded(spec),
            max_input_tokens=entry.max_input_tokens,
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
        )


def _size_here(spec: ModelSpec) -> int | None:
    try:
        return spec.path.stat().st_size
    except OSError:
        return None


def _tuning_view(tuning: Tuning | None) -> TuningView | None:
    return msgspec.convert(tuning, TuningView, from_attributes=True) if tuning else None
