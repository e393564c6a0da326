"""Downloads: what an operator does with models that are elsewhere: pull them, and add others.

Owns what is written of a model once it is here.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import tomlkit

from appliance.admin.models import ModelAdmin, Models
from appliance.catalog.catalog import file_name
from appliance.catalog.folder import read_settings
from appliance.catalog.importer import describe, describe_folder
from appliance.catalog.spec import ID_PATTERN, ModelSpec
from appliance.catalog.user_catalog import DoesNotFit, UserCatalog, put, table_of
from appliance.core.errors import (
    DownloadFailed,
    InvalidModelFile,
    InvalidRequest,
    LoadFailed,
    TrialUnfinished,
)
from appliance.engine.screening import Screen, Screening, trusted
from appliance.hub.downloads import Download, Downloads
from appliance.hub.leftovers import SCRATCH, sweep
from appliance.hub.part import on_disk
from appliance.hub.pull import WEIGHTS, Arrival, Puller, look
from appliance.hub.remote import Hub, RemoteFile
from appliance.store.datadir import DataDir
from appliance.wire.downloads import DownloadList, DownloadView, HubModelOrder
from appliance.wire.models import ModelOrder, ModelView

SETTINGS = (
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
)
"""What of a folder says which kind of model it is."""
SETTINGS_BYTES_MAX = 1 << 20
PREFERRED = ("q8_0", "f16", "bf16", "f32")
"""Of several files, the first kind that is there: vectors and scores lose little with it."""


class DownloadAdmin:
    """The operator's verbs for downloads."""

    def __init__(
        self,
        models: Models,
        model_admin: ModelAdmin,
        hub: Hub,
        downloads: Downloads,
        screen: Screen = trusted,
        screening: Screening | None = None,
    ) -> None:
        self._models = models
        self._model_admin = model_admin
        self._hub = hub
        self._puller = Puller(hub, models.digests)
        self._downloads = downloads
        self._screen = screen
        self._screening = screening

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

        Raises:
            DownloadFailed: the hub does not give it.
            InvalidModelFile: it is of a kind we do not serve.
            InvalidRequest: a field of the order is wrong; `param` names it.
        """
        entry = await asyncio.to_thread(self._entry, order)
        await asyncio.to_thread(self._write, entry)
        self._models.reread()
        return self._model_admin.view(self._models.catalog.find(entry["id"]))

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
        if self._screening is None:
            self._screen(spec)
        else:
            self._screening.require(spec, download.require_wanted)

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

        changed = DownloadFailed(
            f"the entry of {spec.id} was removed or changed while its file was fetched; the file "
            "is kept for the next pull"
        )
        now = next((each for each in self._models.catalog if each.id == spec.id), None)
        if now is None or (now.entry.source, now.path) != (source, spec.path):
            raise changed
        if is_known and own in (None, spec.entry.sha256):
            arrival.give(spec.path)
            return
        try:
            # Other changes wait meanwhile, and a name that is not given is not written down.
            with self._user_catalog.draft(change):
                arrival.give(spec.path)
        except DoesNotFit:
            raise changed from None

    def _entry(self, order: HubModelOrder) -> dict[str, Any]:
        """Return the entry of a repository, from what its files say."""
        name = order.id or order.repo
        if ID_PATTERN.fullmatch(name) is None:
            raise InvalidRequest(f"{name!r} cannot be a model's id", param="id")
        files = self._hub.files(order.repo, None)
        path = order.file or chosen_file(order.repo, files)
        self._directory.models.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path == WEIGHTS:
            return self._folder_entry(order, name, files)
        file = self._hub.find(order.repo, path, None)
        if file.kind != "sha256":
            raise DownloadFailed(f"{order.repo}/{path}: the hub names no sha256 of it")
        with self._scratch() as folder:
            header = look(self._hub, file, folder / "header.gguf")
        entry = describe(header, name=name, file=file_name(name), task=order.task)
        del entry["file"]  # it follows from the id, and the file is the source's
        entry["architecture"] = header.architecture
        entry["description"] = f"Added from {order.repo}."
        entry["source"] = _source(file, "gguf")
        return entry

    def _folder_entry(self, order: HubModelOrder, name: str, files: list[str]) -> dict[str, Any]:
        weights = self._hub.find(order.repo, WEIGHTS, None)
        with self._scratch() as folder:
            for path in SETTINGS:
                if path in files:
                    file = self._hub.find(order.repo, path, weights.revision)
                    (folder / path).parent.mkdir(exist_ok=True)
                    (folder / path).write_bytes(self._hub.read(file, SETTINGS_BYTES_MAX))
            entry = describe_folder(read_settings(folder), name=name, task=order.task)
        entry["description"] = f"Added from {order.repo}; converted here."
        entry["source"] = _source(weights, "safetensors")
        return entry

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._directory.models, prefix=SCRATCH) as path:
            yield Path(path)

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            with self._user_catalog.draft(lambda document: put(document, entry)):
                pass
        except DoesNotFit as error:
            raise InvalidRequest(
                f"{entry['id']!r} does not fit into the catalogue: {error}", param="id"
            ) from None


def chosen_file(repo: str, files: list[str]) -> str:
    """Return the file of a repository that is meant when none is named.

    Raises:
        InvalidRequest: there is none, or none of several stands out; names some.
    """
    found = [path for path in files if path.lower().endswith(".gguf")]
    if not found and WEIGHTS in files:
        return WEIGHTS
    if not found:
        raise InvalidRequest(f"{repo} has neither GGUF files nor {WEIGHTS}", param="repo")
    if len(found) == 1:
        return found[0]
    for kind in PREFERRED:
        fitting = [path for path in found if kind in path.lower().replace("-", "_")]
        if len(fitting) == 1:
            return fitting[0]
    some = ", ".join(found[:5])
    raise InvalidRequest(f"{repo} has {len(found)} GGUF files; name one: {some}", param="file")


def _source(file: RemoteFile, kind: str) -> Any:
    table = tomlkit.inline_table()
    table.update({"repo": file.repo, "revision": file.revision})
    if kind == "gguf":
        table["file"] = file.path
    else:
        table["format"] = kind
    table.update({"bytes": file.bytes, "sha256": file.digest})
    return table


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
