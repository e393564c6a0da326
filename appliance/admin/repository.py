"""Repository: the catalogue entry of a repository of the hub, from what its files say.

Owns which of its files is meant, and which are read for that.
"""

from functools import partial
from pathlib import Path
from typing import Any

import tomlkit

from appliance.catalog.catalog import file_name
from appliance.catalog.folder import read_settings
from appliance.catalog.importer import (
    assumptions,
    describe,
    describe_folder,
    folder_assumptions,
)
from appliance.core.errors import DownloadFailed, InvalidRequest
from appliance.hub.pull import WEIGHTS, look
from appliance.hub.remote import Hub, RemoteFile
from appliance.hub.retry import Asker, asked
from appliance.wire.downloads import HubModelOrder

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


def described(
    hub: Hub, order: HubModelOrder, name: str, scratch: Path, asker: Asker
) -> tuple[dict[str, Any], list[str]]:
    """Return the entry of a repository as the model `name`, and what was assumed, a line each.

    `scratch` is an empty folder for what is read. The entry names no file: it is the source's.

    Raises:
        DownloadFailed: the hub does not give it.
        InvalidModelFile: it is of a kind we do not serve.
        InvalidRequest: a field of the order is wrong; `param` names it.
    """
    files = asked(partial(hub.files, order.repo, None), asker)
    path = order.file or chosen_file(order.repo, files)
    if path == WEIGHTS:
        return _folder(hub, order, name, files, scratch, asker)
    file = asked(partial(hub.find, order.repo, path, None), asker)
    if file.kind != "sha256":
        raise DownloadFailed(f"{order.repo}/{path}: the hub names no sha256 of it")
    header = look(hub, file, scratch / "header.gguf", asker)
    entry = describe(
        header, name=name, file=file_name(name), task=order.task, pooling=order.pooling
    )
    del entry["file"]
    entry["architecture"] = header.architecture
    entry["description"] = f"Added from {order.repo}."
    entry["source"] = _source(file, "gguf")
    return entry, assumptions(header, entry, pooling=order.pooling)


def _folder(
    hub: Hub, order: HubModelOrder, name: str, files: list[str], scratch: Path, asker: Asker
) -> tuple[dict[str, Any], list[str]]:
    weights = asked(partial(hub.find, order.repo, WEIGHTS, None), asker)
    for path in SETTINGS:
        if path in files:
            file = asked(partial(hub.find, order.repo, path, weights.revision), asker)
            (scratch / path).parent.mkdir(exist_ok=True)
            content = asked(partial(hub.read, file, SETTINGS_BYTES_MAX), asker)
            (scratch / path).write_bytes(content)
    settings = read_settings(scratch)
    entry = describe_folder(settings, name=name, task=order.task, pooling=order.pooling)
    entry["description"] = f"Added from {order.repo}; converted here."
    entry["source"] = _source(weights, "safetensors")
    return entry, folder_assumptions(settings, pooling=order.pooling)


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
