"""Downloads: what an operator does with models that are elsewhere: pull them, and add others.

Owns what is written of a model once it is here.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import tomlkit

from appliance.admin.models import ModelAdmin, Models
from appliance.catalog.catalog import file_name
from appliance.catalog.folder import read_settings
from appliance.catalog.importer import describe, describe_folder
from appliance.catalog.spec import ID_PATTERN, ModelSpec, Source
from appliance.catalog.user_catalog import DoesNotFit, UserCatalog, put, table_of
from appliance.core.errors import DownloadFailed, InvalidRequest
from appliance.engine.screening import Screen, trusted
from appliance.hub.downloads import Download, Downloads
from appliance.hub.pull import WEIGHTS, Found, look, pull
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
    ) -> None:
        self._models = models
        self._model_admin = model_admin
        self._hub = hub
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
        source = spec.entry.source
        assert source is not None
        if spec.path.exists() and spec.entry.sha256 is not None:
            download.state = "checking"
            size = spec.path.stat().st_size
            download.expect(size)
            if self._models.digests.sha256(spec.path) == spec.entry.sha256:
                download.progress(size)
                self._screen(spec)
                return
            download.state = "fetching"
        found = pull(self._hub, spec, download)
        self._pin(spec, source, found)
        self._models.reread()
        download.state = "checking"
        self._screen(self._models.catalog.find(spec.id))

    def _pin(self, spec: ModelSpec, source: Source, found: Found) -> None:
        """Write down what was found, where the catalogue did not say it: it counts from now on."""
        own = None if source.format == "gguf" else self._models.digests.sha256(spec.path)
        is_known = (source.revision, source.bytes, source.sha256) == (
            found.revision,
            found.bytes,
            found.sha256,
        )
        if is_known and own in (None, spec.entry.sha256):
            return

        def change(document: Any) -> None:
            table = table_of(document, spec.id)
            table["source"] = table.get("source", tomlkit.inline_table())
            table["source"].update(
                {"revision": found.revision, "bytes": found.bytes, "sha256": found.sha256}
            )
            if own is not None:
                table["sha256"] = own

        with self._user_catalog.draft(change):
            pass

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
        header = look(self._hub, file, self._scratch(file))
        entry = describe(header, name=name, file=file_name(name), task=order.task)
        del entry["file"]  # it follows from the id, and the file is the source's
        entry["architecture"] = header.architecture
        entry["description"] = f"Added from {order.repo}."
        entry["source"] = _source(file, "gguf")
        return entry

    def _folder_entry(self, order: HubModelOrder, name: str, files: list[str]) -> dict[str, Any]:
        weights = self._hub.find(order.repo, WEIGHTS, None)
        with tempfile.TemporaryDirectory(dir=self._directory.models) as temporary:
            folder = Path(temporary)
            for path in SETTINGS:
                if path in files:
                    file = self._hub.find(order.repo, path, weights.revision)
                    (folder / path).parent.mkdir(exist_ok=True)
                    (folder / path).write_bytes(self._hub.read(file, SETTINGS_BYTES_MAX))
            entry = describe_folder(read_settings(folder), name=name, task=order.task)
        entry["description"] = f"Added from {order.repo}; converted here."
        entry["source"] = _source(weights, "safetensors")
        return entry

    def _scratch(self, file: RemoteFile) -> Path:
        return self._directory.models / f"{file.digest}.header"

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
