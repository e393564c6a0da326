"""Downloads: what an operator does with models that are elsewhere: pull them, and add others.

Owns what is written of a model once it is here.
"""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import tomlkit

from appliance.admin.additions import Running
from appliance.admin.models import ModelAdmin, Models
from appliance.admin.repository import described
from appliance.catalog.addition import file_name as own_name
from appliance.catalog.kept_words import replacement
from appliance.catalog.leftovers import Leftovers
from appliance.catalog.spec import ID_PATTERN, ModelSpec
from appliance.catalog.user_catalog import DoesNotFit, UserCatalog, require_free, table_of
from appliance.core.errors import (
    DownloadFailed,
    InvalidCatalog,
    InvalidModelFile,
    InvalidRequest,
    LoadFailed,
    TrialUnfinished,
)
from appliance.engine.screening import CancellableScreen, trusted
from appliance.hub.downloads import Download, Downloads
from appliance.hub.leftovers import SCRATCH, sweep
from appliance.hub.part import on_disk
from appliance.hub.pull import Arrival, Puller
from appliance.hub.remote import Hub
from appliance.store.datadir import DataDir
from appliance.wire.downloads import DownloadList, DownloadView, HubModelOrder
from appliance.wire.models import ModelOrder, ModelView


class DownloadAdmin:
    """The operator's verbs for downloads."""

    def __init__(
        self,
        models: Models,
        model_admin: ModelAdmin,
        hub: Hub,
        downloads: Downloads,
        screen: CancellableScreen = trusted,
    ) -> None:
        self._models = models
        self._model_admin = model_admin
        self._hub = hub
        self._puller = Puller(hub, models.digests)
        self._downloads = downloads
        self._screen = screen

    @property
    def _directory(self) -> DataDir:
        return self._models.directory

    @property
    def _user_catalog(self) -> UserCatalog:
        return UserCatalog(self._directory.catalog, self._directory.models)

    async def pull(self, order: ModelOrder) -> DownloadView:
        """Begin to fetch a model, or say how far it is; one that is here is only checked.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: it is built in or the user's own file; `param` is `id`.
        """
        spec = self._models.catalog.find(order.id)
        if spec.entry.source is None:
            raise InvalidRequest(
                f"{spec.id} has no source on the hub: it is built in, or your own file", param="id"
            )
        return _view(self._downloads.start(spec.id, lambda download: self._work(spec, download)))

    async def all(self) -> DownloadList:
        """Return every download since the start."""
        return DownloadList([_view(download) for download in self._downloads.all()])

    async def show(self, download_id: str) -> DownloadView:
        """Return one download.

        Raises:
            DownloadNotFound: none has this id.
        """
        return _view(self._downloads.get(download_id))

    async def cancel(self, download_id: str) -> DownloadView:
        """Cancel a download; the next pull resumes it.

        Raises:
            DownloadNotFound: none has this id.
        """
        return _view(self._downloads.cancel(download_id))

    async def add(self, order: HubModelOrder) -> ModelView:
        """Put a repository of the hub into the user's catalogue, after reading what it is.

        A model that is replaced stays until the new file was fetched and tried; the answer names
        the download that does it.

        Raises:
            DownloadFailed: the hub does not give it.
            InvalidModelFile: it is of a kind we do not serve.
            InvalidRequest: a field of the order is wrong, or there is such a model; `param` names
                the field.
            InvalidCatalog: the user's file cannot be read.
            AdditionCancelled: somebody cancelled it.
        """
        name = order.id if order.id is not None else order.repo
        if ID_PATTERN.fullmatch(name) is None:
            raise InvalidRequest(f"{name!r} cannot be a model's id", param="id")
        # Before the hub is asked, and once more before anything is changed.
        catalog = await asyncio.to_thread(self._user_catalog.current)
        require_free(catalog, name, replace=order.replace)
        self._require_not_fetched(name)
        notes, download = await self._model_admin.additions.run(
            name, order.repo, lambda running: self._add(order, running), param="repo"
        )
        await asyncio.to_thread(self._models.reread)
        view = self._model_admin.view(self._models.catalog.find(name), notes=notes)
        return msgspec.structs.replace(view, download=download.id if download else None)

    def _work(self, spec: ModelSpec, download: Download) -> None:
        sweep(self._directory.models, now_us=download.clock.wall_us())
        if self._is_here(spec, download):
            self._require_passed(spec, download)
            return
        with self._puller.pull(spec, download, lambda sha256: self._twins(spec, sha256)) as arrival:
            self._try(spec, arrival, download)
            download.keep()
            self._keep(spec, arrival)
            self._models.reread()  # whoever waits for this content finds it by its digest

    def _is_here(self, spec: ModelSpec, download: Download) -> bool:
        """Return whether a model's file is here and is the one that the catalogue names."""

        def checked(read: int) -> None:
            download.require_wanted()
            download.progress(read)

        if spec.entry.sha256 is None or not spec.path.is_file():
            return False
        with on_disk(spec.path):
            download.expect(spec.path.stat().st_size)
            download.enter("checking")
            found = self._models.digests.sha256(spec.path, checked)
        download.progress(download.bytes_total)
        return found == spec.entry.sha256

    def _twins(self, spec: ModelSpec, sha256: str) -> list[Path]:
        """Return files of this machine that are the same: the model's own, and other models'."""
        named = [each.path for each in self._models.catalog if each.entry.sha256 == sha256]
        with on_disk(spec.path):
            return [
                path
                for path in dict.fromkeys([spec.path, *named])
                if path.is_file() and self._models.digests.sha256(path) == sha256
            ]

    def _try(self, spec: ModelSpec, arrival: Arrival, download: Download) -> None:
        """Try a file before it gets its name; one that is refused is removed.

        Raises:
            LoadFailed: it is refused, or nothing was found out about it, and then it stays.
            DownloadCancelled: the download was cancelled, which ends the trial.
        """
        entry = msgspec.structs.replace(
            spec.entry, sha256=self._models.digests.sha256(arrival.path)
        )
        try:
            tried = msgspec.structs.replace(spec, entry=entry, path=arrival.path)
            self._require_passed(tried, download)
        except (LoadFailed, InvalidModelFile) as error:
            download.require_wanted()
            if not isinstance(error, TrialUnfinished):
                arrival.discard()
            raise LoadFailed(error.message.replace(arrival.path.name, spec.path.name)) from error

    def _require_passed(self, spec: ModelSpec, download: Download) -> None:
        """Have a file tried; the trial ends when the download is cancelled."""
        download.enter("trying")
        self._screen(spec, download.require_wanted)

    def _keep(self, spec: ModelSpec, arrival: Arrival) -> None:
        """Give a file its name, and write down what it is where the catalogue did not say it."""
        source, found = spec.entry.source, arrival.found
        assert source is not None
        named = {"revision": found.revision, "bytes": found.bytes, "sha256": found.sha256}
        own = None if source.format == "gguf" else self._models.digests.sha256(arrival.path)
        is_known = all(getattr(source, key) == value for key, value in named.items())

        def change(document: Any) -> None:
            table = table_of(document, spec.id)
            table["source"] = table.get("source", tomlkit.inline_table())
            table["source"].update(named)
            if own is not None:
                table["sha256"] = own

        now = next((each for each in self._models.catalog if each.id == spec.id), None)
        if now is None or (now.entry.source, now.path) != (source, spec.path):
            raise _changed(spec)
        if is_known and own in (None, spec.entry.sha256):
            arrival.give(spec.path)
            return
        try:
            # Other changes wait meanwhile, and a name that is not given is not written down.
            with self._user_catalog.draft(change):
                arrival.give(spec.path)
        except DoesNotFit:
            raise _changed(spec) from None

    def _add(self, order: HubModelOrder, running: Running) -> tuple[list[str], Download | None]:
        """Write what a repository is; return what to know of it, and the download that follows."""
        name = running.model
        running.progress("look", 0, 0)
        self._directory.models.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._directory.models, prefix=SCRATCH) as scratch:
            entry, notes = described(self._hub, order, name, Path(scratch), running)
        with self._user_catalog.changing():
            catalog = self._user_catalog.current()
            require_free(catalog, name, replace=order.replace)
            running.progress("swap", 0, 0)
            before = next((spec for spec in catalog if spec.id == name), None)
            if before is not None:
                entry["file"] = own_name(name, entry["source"]["sha256"])
            lost: list[str] = []
            change = replacement(self._user_catalog, entry, lost)
            try:
                if before is None or not before.path.is_file():
                    with self._user_catalog.draft(change):
                        pass
                    return [*notes, *lost], None
                spec = self._user_catalog.preview(change).find(name)
            except DoesNotFit as error:
                raise InvalidRequest(
                    f"{name!r} does not fit into the catalogue: {error}", param="id"
                ) from None
        return [*notes, *lost], self._begin_to_replace(spec, entry)

    def _require_not_fetched(self, name: str) -> None:
        """Refuse to change what a model is while its file is fetched."""
        if any(each.model == name and not each.is_over for each in self._downloads.all()):
            raise InvalidRequest(f"{name} is being fetched; cancel that first", param="id")

    def _begin_to_replace(self, spec: ModelSpec, entry: dict[str, Any]) -> Download:
        """Begin to fetch what is to take the place of a model that is here."""
        self._require_not_fetched(spec.id)
        return self._downloads.start(spec.id, lambda download: self._replace(spec, entry, download))

    def _replace(self, spec: ModelSpec, entry: dict[str, Any], download: Download) -> None:
        """Fetch and try a file, and put it and its entry in place of the former ones."""
        sweep(self._directory.models, now_us=download.clock.wall_us())
        with self._puller.pull(spec, download, lambda sha256: self._twins(spec, sha256)) as arrival:
            self._try(spec, arrival, download)
            download.keep()
            if arrival.folder is not None:
                entry = {**entry, "sha256": self._models.digests.sha256(arrival.path)}
            self._swap(spec, entry, arrival)
            self._models.reread()

    def _swap(self, spec: ModelSpec, entry: dict[str, Any], arrival: Arrival) -> None:
        leftovers = Leftovers(self._directory.models)
        with self._user_catalog.changing():
            former = [each.path for each in self._user_catalog.current() if each.id == spec.id]
            if not former:
                raise _changed(spec)
            note = leftovers.note([spec.path, *former])
            try:
                with self._user_catalog.draft(replacement(self._user_catalog, entry, [])):
                    arrival.give(spec.path)
            except DoesNotFit:
                raise _changed(spec) from None
            finally:
                with suppress(InvalidCatalog):  # somebody edits it now: the next start settles it
                    leftovers.settle(note, self._user_catalog.current())


def _changed(spec: ModelSpec) -> DownloadFailed:
    return DownloadFailed(
        f"the entry of {spec.id} was removed or changed while its file was fetched; the file "
        "is kept for the next pull"
    )


def _view(download: Download) -> DownloadView:
    return DownloadView(
        id=download.id,
        model=download.model,
        state=download.state,
        bytes=download.bytes_have,
        bytes_total=download.bytes_total,
        rate=round(download.rate(), 1),
        eta_s=download.eta_s(),
        error=download.error,
    )
