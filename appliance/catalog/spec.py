"""Spec: the description of one model in the catalogue.

Defines the fields of an entry in `models.toml` and the checks between them. It reads no files; the
catalogue resolves paths.
"""

import hashlib
import re
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from appliance.pricing.tariff import UNIT_OF, Tariff, TaskKind
from appliance.settings import TokenIds

Pooling = Literal["mean", "cls", "last", "rank"]
Scores = Literal["cosine", "sigmoid", "as-is"]

ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", re.ASCII)
"""`name` or `owner/name`; a path or a control character cannot match."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, msgspec.Meta(ge=1, le=1 << 44)]
Repo = Annotated[
    str,
    msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z"),
]
"""`owner/name`; strict, because it becomes part of a URL."""
Revision = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}\Z")]
"""A commit's hash; not a branch, which can point to another file later."""


class PriceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`price = { unit, realtime, batch, tokens_per_document }`."""

    unit: Text
    realtime: Decimal
    batch: Decimal | None = None
    """None: half the realtime price."""
    tokens_per_document: Size | None = None
    """A document costs as many as it begins to fill with so many tokens, those of the query and of
    special ones included; None: one, however long it is."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`source = { repo, revision, file, bytes, sha256 }`: where the hub has the model."""

    repo: Repo
    file: Text | None = None
    """Path of a GGUF file in the repository; None for safetensors, which are several files."""
    revision: Revision | None = None
    """None: the newest at the first download, which is then written to the user's catalogue."""
    bytes: Bytes | None = None
    sha256: Sha256 | None = None
    format: Literal["gguf", "safetensors"] = "gguf"
    """safetensors: configuration, tokenizer and weights are downloaded and converted to GGUF."""


class Prompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`prompts = { query, document }`: text that is put before a query or a document."""

    query: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    document: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[model]]` table of the file."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    task: TaskKind
    file: Text
    price: PriceEntry
    max_input_tokens: Annotated[int, msgspec.Meta(ge=4, le=1_048_576)]
    pooling: Pooling
    aliases: tuple[str, ...] = ()
    description: str = ""
    license: str = ""
    sha256: Sha256 | None = None
    quantization: str = ""
    params: Annotated[int, msgspec.Meta(ge=0)] = 0
    dimensions: Size | None = None
    matryoshka: tuple[Size, ...] = ()
    scores: Scores | None = None
    segments: bool = False
    prompts: Prompts | None = None
    template: Literal["qwen3-reranker"] | None = None
    """The prompt around a query and a document; required for a decoder that reranks."""
    preload: bool = False
    pin: bool = False
    """True: once loaded, it is never unloaded to make room for another model."""
    isolation: Literal["process", "none"] | None = None
    """Whether it is computed in a process of its own; None: as `engine.isolation` says."""
    token_ids: TokenIds | None = None
    """What token ids are that a client sends instead of texts; None: as the setting says."""
    architecture: str = ""
    """Its name in GGUF; a downloaded file must have it. Empty: not checked."""
    source: Source | None = None
    """None: the file is shipped with the program, or was added by the user."""
    verified: bool = True
    """False: this entry was not confirmed by a second source. Downloads are checked anyway."""
    commercial: bool = True
    """False: the licence forbids commercial use."""


class ModelSpec(msgspec.Struct, frozen=True):
    """One model after all checks, with the path of its file on this machine."""

    entry: ModelEntry
    tariff: Tariff
    path: Path
    """Where the weights are, or will be after a download."""

    @property
    def id(self) -> str:
        """Return the name that clients send as `model`."""
        return self.entry.id

    @property
    def task(self) -> TaskKind:
        """Return what the model does: embeddings or rerank."""
        return self.entry.task

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change whenever vectors or scores could change."""
        entry = self.entry
        return _digits(
            f"{entry.sha256 or entry.file}|{entry.pooling}|{entry.scores}|{entry.segments}"
            f"|{entry.max_input_tokens}"  # what is cut from a text is missing in its vector
            + (f"|{entry.prompts}" if entry.prompts else "")
            + (f"|{entry.template}" if entry.template else "")
        )

    def prompt(self, kind: str) -> str:
        """Return the text that is put before a `query` or a `document`; often empty."""
        return str(getattr(self.entry.prompts, kind)) if self.entry.prompts else ""


@lru_cache(maxsize=1024)
def _digits(what: str) -> str:
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def checked_tariff(entry: ModelEntry) -> Tariff:
    """Check an entry's fields against each other and return its prices.

    Raises:
        ValueError: a field is wrong; the message is `key: reason`.
    """
    for key, name in (("id", entry.id), *(("aliases", alias) for alias in entry.aliases)):
        if ID_PATTERN.fullmatch(name) is None:
            raise ValueError(f"{key}: {name!r} must look like name or owner/name")
    if entry.task == "embeddings" and entry.dimensions is None:
        raise ValueError("dimensions: is missing")
    _check_scores(entry)
    if entry.dimensions is not None and any(s >= entry.dimensions for s in entry.matryoshka):
        raise ValueError("matryoshka: sizes must be smaller than dimensions")
    _check_source(entry)
    if entry.price.tokens_per_document is not None and entry.task != "rerank":
        raise ValueError("price.tokens_per_document: goes with rerank")
    if entry.price.unit != UNIT_OF[entry.task]:
        raise ValueError(f'price.unit: must be "{UNIT_OF[entry.task]}" for {entry.task}')
    return _tariff(entry)


def _check_scores(entry: ModelEntry) -> None:
    if entry.task == "rerank" and entry.scores is None:
        raise ValueError("scores: is missing")
    if entry.task == "rerank" and (entry.pooling == "rank") != (entry.scores != "cosine"):
        raise ValueError('scores: "cosine" goes with vectors, "sigmoid" and "as-is" with "rank"')
    if entry.template is not None and (entry.pooling, entry.scores) != ("rank", "as-is"):
        raise ValueError('template: goes with pooling "rank" and scores "as-is"')
    if entry.prompts is not None and entry.pooling == "rank":
        raise ValueError("prompts: are for models that give vectors")
    if entry.task == "embeddings" and entry.pooling == "rank":
        raise ValueError('pooling: "rank" is for rerank models')


def _check_source(entry: ModelEntry) -> None:
    source = entry.source
    if source is None:
        return
    if source.format == "gguf":
        if source.file is None or not is_repo_path(source.file):
            raise ValueError(f"source.file: {source.file!r} is no path of a file in a repository")
        if entry.verified and None in (source.revision, source.bytes, source.sha256):
            raise ValueError(
                "verified: needs revision, bytes and sha256 in source; say verified = false"
            )
    elif source.file is not None:
        raise ValueError("source.file: goes with GGUF; safetensors are fetched as a folder")
    is_same_file = source.format == "gguf"
    if is_same_file and source.sha256 and entry.sha256 and source.sha256 != entry.sha256:
        raise ValueError(f"sha256: is {entry.sha256}, and in source {source.sha256}")


def is_repo_path(path: str) -> bool:
    """Return whether a text is the relative path of a file inside a repository."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)


def _tariff(entry: ModelEntry) -> Tariff:
    batch = entry.price.batch
    try:
        return Tariff(
            entry.task,
            entry.price.realtime,
            entry.price.realtime / 2 if batch is None else batch,
        )
    except ArithmeticError:
        raise ValueError("price: is no number that can be computed with") from None
    except ValueError as error:
        tier, _, reason = str(error).partition(" ")
        raise ValueError(f"price.{tier}: {reason}") from None
