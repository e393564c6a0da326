"""Importer: add a local model to the user's catalogue.

Derives the fields of a catalogue entry from the model's file, and changes entries of the user's
`models.toml`.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import tomlkit

from appliance.catalog.capacity import DECODERS, is_causal, is_decoder
from appliance.catalog.catalog import Catalog, file_name
from appliance.catalog.convert import convert_folder
from appliance.catalog.folder import BertSettings
from appliance.catalog.header import Header
from appliance.catalog.header_parser import read_header
from appliance.catalog.heads import has_head, kind_of, rank_reason
from appliance.catalog.spec import ID_PATTERN
from appliance.catalog.user_catalog import DoesNotFit, UserCatalog, put, table_of
from appliance.core.errors import InvalidModelFile, InvalidRequest
from appliance.pricing.tariff import UNIT_OF, TaskKind

POOLING = {1: "mean", 2: "cls", 3: "last"}
"""GGUF's numbers for pooling, without 4 (rank): a file with a head is recognized by its head."""
NO_POOLING = 0
"""GGUF's number for a vector for each token and none for the text: then the usual pooling of the
architecture is used."""

FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    12: "Q3_K_M",
    14: "Q4_K_S",
    15: "Q4_K_M",
    17: "Q5_K_M",
    18: "Q6_K",
    32: "BF16",
}

ENCODERS = frozenset(
    {
        "bert",
        "nomic-bert",
        "nomic-bert-moe",
        "jina-bert-v2",
        "jina-bert-v3",
        "neo-bert",
        "eurobert",
        "modern-bert",
        "gemma-embedding",
    }
)
"""Architectures without a KV cache, by their names in GGUF."""

DEFAULT_PRICE = "0.008"
PRICE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,18})?", re.ASCII)
"""A price as an operator enters it: a decimal in credits."""


@dataclass(frozen=True, slots=True)
class ModelImporter:
    """Adds and changes models of the user's catalogue."""

    catalog: Path
    """The user's `models.toml`."""
    models: Path
    """The folder of model files."""

    @property
    def _user_catalog(self) -> UserCatalog:
        return UserCatalog(self.catalog, self.models)

    def add(self, source: Path, *, model_id: str | None, task: str | None, sha256: Any) -> str:
        """Copy or convert a local model, write its catalogue entry, and return its id.

        `sha256` is a function from a path to the file's hexadecimal digest.

        Raises:
            InvalidModelFile: the file or folder is damaged, or of a kind that cannot be served.
            InvalidRequest: the id or the task is invalid.
        """
        name = model_id or source.name.removesuffix(".gguf")
        if ID_PATTERN.fullmatch(name) is None:
            raise InvalidRequest(
                f"{name!r} cannot be a model's id; give one with --id, like name or owner/name",
                param="id",
            )
        if not source.exists():
            raise InvalidModelFile(source, "there is no such file or folder")
        file = self.models / file_name(name)
        part = file.with_name(file.name + ".part")
        part.unlink(missing_ok=True)
        try:
            if source.is_dir():
                convert_folder(source, part, name=name)
            else:
                read_header(source)  # refuse it before copying gigabytes
                _copy(source, part)
            entry = describe(read_header(part), name=name, file=file.name, task=task)
            entry["sha256"] = sha256(part)
            with self._user_catalog.draft(lambda document: put(document, entry)) as models:
                self._require_readable(models, name, file)
                part.replace(file)
        except DoesNotFit as error:
            raise InvalidRequest(
                f"{name!r} does not fit into the catalogue: {error}", param="id"
            ) from None
        finally:
            part.unlink(missing_ok=True)
        return name

    def set_price(self, name: str, *, realtime: str, batch: str | None) -> None:
        """Write a model's price to the user's catalogue; other fields of the entry do not change.

        Raises:
            InvalidRequest: a price is not a decimal, or cannot be charged exactly.
        """
        price = tomlkit.inline_table()
        for tier, text in (("realtime", realtime), ("batch", batch)):
            if text is not None and PRICE.fullmatch(text) is None:
                raise InvalidRequest(f"{tier} is a decimal like 0.008, not {text!r}", param=tier)
        # The batch price is always written: otherwise that of the shipped entry would stay.
        half = f"{Decimal(realtime) / 2:f}"
        for tier, text in (("realtime", realtime), ("batch", half if batch is None else batch)):
            price[tier] = tomlkit.value(text if "." in text else f"{text}.0")

        def change(document: Any) -> None:
            table = table_of(document, name)
            old = table.get("price", {})
            if "unit" in old:
                price["unit"] = old["unit"]
            table["price"] = price

        self._write(change, what="price", before=": price.", param="realtime")

    def set_aliases(self, name: str, aliases: Sequence[str]) -> None:
        """Replace a model's aliases in the user's catalogue.

        Raises:
            InvalidRequest: a name is malformed, or belongs to another model.
        """

        def change(document: Any) -> None:
            table_of(document, name)["aliases"] = list(aliases)

        self._write(change, what="aliases", before="aliases: ", param="aliases")

    def _write(self, change: Callable[[Any], None], *, what: str, before: str, param: str) -> None:
        """Change the user's file; `before` is the text before the reason in the error's message."""
        try:
            with self._user_catalog.draft(change):
                pass
        except DoesNotFit as error:
            reason = str(error).rpartition(before)[2]
            raise InvalidRequest(f"{what}: {reason}", param=param) from None

    def _require_readable(self, models: Catalog, name: str, file: Path) -> None:
        """Refuse a file name that another model uses."""
        others = [spec.id for spec in models if spec.path == file.resolve() and spec.id != name]
        if others:
            raise InvalidRequest(f"{file.name} belongs to {others[0]!r}", param="id")


def describe(header: Header, *, name: str, file: str, task: str | None) -> dict[str, Any]:
    """Return the catalogue entry of a GGUF file, from the file's own header.

    Raises:
        InvalidModelFile: the model is of a kind that cannot be served.
        InvalidRequest: the model cannot do the given task.
    """
    architecture = header.architecture
    if architecture not in ENCODERS | DECODERS:
        served = ", ".join(sorted(ENCODERS | DECODERS))
        raise InvalidModelFile(header.path, f"{architecture} is not served yet; served: {served}")
    ranks = has_head(header)
    reason = rank_reason(header) if ranks else None
    if reason is not None:
        raise InvalidModelFile(header.path, reason)
    if is_decoder(header) and not is_causal(header):
        raise InvalidModelFile(
            header.path, f"{architecture} with attention in both directions is not served"
        )
    found: TaskKind = "rerank" if ranks else "embeddings"
    if task not in (None, "embeddings", "rerank"):
        raise InvalidRequest(f"task is 'embeddings' or 'rerank', not {task!r}", param="task")
    if task is not None and task != found:
        raise InvalidRequest(f"this file is for {found}, not for {task}", param="task")
    pooling = "rank" if found == "rerank" else _pooling(header)
    entry: dict[str, Any] = {
        "id": name,
        "task": found,
        "description": f"Added from a local file: {header.get_str('general.name', name)}"[:500],
        "file": file,
        "quantization": FILE_TYPES.get(header.get_int("general.file_type", -1), ""),
        "params": sum(_elements(tensor.shape) for tensor in header.tensors.values()),
        "max_input_tokens": header.arch_int("context_length"),
        "pooling": pooling,
        "price": _price(found),
    }
    if found == "rerank":
        activation = header.get_str("gigarouter.head.activation", "sigmoid")
        is_judge = is_decoder(header)
        entry["scores"] = "as-is" if is_judge or activation == "identity" else "sigmoid"
        entry["segments"] = kind_of(header) == ("bert", "bert") and _segments(header)
        if is_judge:
            entry["template"] = "qwen3-reranker"
    else:
        entry["dimensions"] = header.arch_int("embedding_length")
    return entry


def describe_folder(settings: BertSettings, *, name: str, task: str | None) -> dict[str, Any]:
    """Return the catalogue entry of a folder that will be converted, from its settings.

    Raises:
        InvalidRequest: the model cannot do the given task.
    """
    found: TaskKind = "rerank" if settings.is_cross_encoder else "embeddings"
    if task not in (None, found):
        raise InvalidRequest(f"this model is for {found}, not for {task}", param="task")
    entry: dict[str, Any] = {
        "id": name,
        "task": found,
        "quantization": "F16",
        "architecture": "bert",
        "max_input_tokens": settings.context_length,
        "pooling": "rank" if found == "rerank" else POOLING[settings.pooling],
        "price": _price(found),
    }
    if found == "rerank":
        entry["scores"] = "as-is" if settings.activation == "identity" else "sigmoid"
        entry["segments"] = settings.token_type_count > 1
    else:
        entry["dimensions"] = settings.embedding_length
    return entry


def _pooling(header: Header) -> str:
    named = header.get_int(f"{header.architecture}.pooling_type", NO_POOLING)
    if named == NO_POOLING:
        return "last" if is_decoder(header) else "mean"
    if named not in POOLING:
        raise InvalidModelFile(header.path, f"its pooling type {named} gives no vectors")
    return POOLING[named]


def _segments(header: Header) -> bool:
    types = header.tensors.get("token_types.weight")
    return types is not None and len(types.shape) > 1 and types.shape[0] > 1


def _elements(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _price(task: TaskKind) -> Any:
    price = tomlkit.inline_table()
    price["unit"] = UNIT_OF[task]
    price["realtime"] = tomlkit.value(DEFAULT_PRICE)
    return price


def _copy(source: Path, target: Path) -> None:
    """Copy a file, with permission for its owner only.

    A link would be faster, but llama.cpp maps the file into memory: a program that then changed the
    source in place would crash the server.
    """
    shutil.copyfile(source, target)
    target.chmod(0o600)
    with target.open("rb") as file:
        os.fsync(file.fileno())
