"""Importer: the catalogue entry of a model, from what its own files say.

Owns what is assumed where they say nothing.
"""

from collections.abc import Mapping
from typing import Any

import tomlkit

from appliance.catalog.capacity import DECODERS, is_causal, is_decoder
from appliance.catalog.folder import BertSettings
from appliance.catalog.foreign import part_reason
from appliance.catalog.header import Header
from appliance.catalog.heads import has_head, kind_of, rank_reason
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


def describe(
    header: Header, *, name: str, file: str, task: str | None, pooling: str | None = None
) -> dict[str, Any]:
    """Return the catalogue entry of a GGUF file, from the file's own header.

    `pooling` counts in the place of what the file says or what is usual.

    Raises:
        InvalidModelFile: the model is of a kind that cannot be served.
        InvalidRequest: the model cannot do the given task, or has no vectors to pool.
    """
    reason = part_reason(header)
    if reason is not None:
        raise InvalidModelFile(header.path, reason)
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
    _require_task(found, task)
    _require_pooling(found, pooling)
    pooling = "rank" if found == "rerank" else pooling or _pooling(header)
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


def assumptions(header: Header, entry: Mapping[str, Any], *, pooling: str | None) -> list[str]:
    """Return what an operator should know of an entry that its file does not say, a line each.

    `pooling` is what the operator asked for.
    """
    if entry["task"] != "embeddings":
        return []
    named = header.get_int(f"{header.architecture}.pooling_type", NO_POOLING)
    if pooling is None:
        if named in POOLING:
            return []
        usual = f"{entry['pooling']} was taken, which is usual for {header.architecture}"
        return [
            f"the file names no pooling: {usual}; give --pooling if its publisher says otherwise"
        ]
    if POOLING.get(named, pooling) != pooling:
        return [f"pooling is {pooling}, as asked for; the file says {POOLING[named]}"]
    return []


def describe_folder(
    settings: BertSettings, *, name: str, task: str | None, pooling: str | None = None
) -> dict[str, Any]:
    """Return the catalogue entry of a folder that will be converted, from its settings.

    Raises:
        InvalidRequest: the model cannot do the given task, or has no vectors to pool.
    """
    found: TaskKind = "rerank" if settings.is_cross_encoder else "embeddings"
    _require_task(found, task)
    _require_pooling(found, pooling)
    entry: dict[str, Any] = {
        "id": name,
        "task": found,
        "quantization": "F16",
        "architecture": "bert",
        "max_input_tokens": settings.tokens_max,
        "pooling": "rank" if found == "rerank" else pooling or POOLING[settings.pooling],
        "price": _price(found),
    }
    if found == "rerank":
        entry["scores"] = "as-is" if settings.activation == "identity" else "sigmoid"
        entry["segments"] = settings.token_type_count > 1
    else:
        entry["dimensions"] = settings.embedding_length
    return entry


def folder_assumptions(settings: BertSettings, *, pooling: str | None) -> list[str]:
    """Return what an operator should know of a folder's entry; as `assumptions`."""
    notes = []
    if settings.tokens_max < settings.context_length:
        notes.append(
            f"max_input_tokens is {settings.tokens_max}, from {settings.tokens_from}; the weights "
            f"take up to {settings.context_length}, which your models.toml may say"
        )
    if settings.is_cross_encoder:
        return notes
    named = POOLING[settings.pooling]
    if pooling is not None:
        if pooling != named:
            notes.append(f"pooling is {pooling}, as asked for; the folder says {named}")
    elif settings.pooling_from is None:
        notes.append(
            f"the folder names no pooling: {named} was taken; give --pooling if its publisher "
            "says otherwise"
        )
    else:
        notes.append(f"pooling is {named}, from {settings.pooling_from}")
    return notes


def _require_task(found: TaskKind, task: str | None) -> None:
    if task not in (None, "embeddings", "rerank"):
        raise InvalidRequest(f"task is 'embeddings' or 'rerank', not {task!r}", param="task")
    if task is not None and task != found:
        head = "it has a head for scores" if found == "rerank" else "it has no head for scores"
        raise InvalidRequest(f"this file is for {found}, not for {task}: {head}", param="task")


def _require_pooling(found: TaskKind, pooling: str | None) -> None:
    kinds = sorted(POOLING.values())
    if pooling is not None and pooling not in kinds:
        raise InvalidRequest(
            f"pooling is one of {', '.join(kinds)}, not {pooling!r}", param="pooling"
        )
    if pooling is not None and found == "rerank":
        raise InvalidRequest(
            "pooling is for models that give vectors; this one has a head for scores",
            param="pooling",
        )


def _pooling(header: Header) -> str:
    named = header.get_int(f"{header.architecture}.pooling_type", NO_POOLING)
    if named == NO_POOLING:
        return "last" if is_decoder(header) else "mean"
    if named not in POOLING:
        raise InvalidModelFile(
            header.path, f"its pooling type {named} gives no vectors, and it has no head for scores"
        )
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
