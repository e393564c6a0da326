"""Folder: the settings of a Hugging Face model folder of the BERT family.

Reads config.json, modules.json and the pooling module, and refuses every setting that would not be
computed exactly here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from appliance.core.errors import InvalidModelFile
from appliance.store.regular_file import open_regular

JSON_BYTES_MAX = 64 * 1024 * 1024
"""Largest JSON or vocabulary file, in bytes; a large tokenizer.json has about 20 million."""
POOLING_MEAN, POOLING_CLS, POOLING_RANK = 1, 2, 4
"""llama.cpp's numbers for the kinds of pooling."""

CONFIG = "config.json"
SENTENCES = "sentence_bert_config.json"
TOKENIZER = "tokenizer_config.json"
POOLING_PATH = "1_Pooling"
TOKENS_MIN = 4
"""Tokens of the shortest limit that is believed; a smaller one is a placeholder."""

_EMBEDDER = "BertModel"
_CROSS_ENCODER = "BertForSequenceClassification"
_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Identity": "identity"}

_T = TypeVar("_T")
_Size = Annotated[int, msgspec.Meta(gt=0, le=1 << 24)]


class _Kind(msgspec.Struct):
    model_type: str = ""


class _Head(msgspec.Struct):
    activation_fn: str | None = None


class _Config(msgspec.Struct):
    hidden_size: _Size
    num_hidden_layers: Annotated[int, msgspec.Meta(gt=0, le=512)]
    num_attention_heads: _Size
    intermediate_size: _Size
    vocab_size: _Size
    max_position_embeddings: _Size
    type_vocab_size: _Size = 2
    layer_norm_eps: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    architectures: list[str] | None = None
    id2label: dict[int, str] | None = None
    sbert_ce_default_activation_function: str | None = None
    sentence_transformers: _Head | None = None


class _Sentences(msgspec.Struct):
    max_seq_length: int | None = None


class _Tokenizer(msgspec.Struct):
    model_max_length: float | None = None
    """transformers writes 1e30 where there is no limit."""


class _Module(msgspec.Struct):
    type: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class BertSettings:
    """The checked settings of config.json and of the pooling module."""

    embedding_length: int
    block_count: int
    head_count: int
    feed_forward_length: int
    vocab_size: int
    context_length: int
    token_type_count: int
    layer_norm_epsilon: float
    pooling: int
    """One of `POOLING_MEAN`, `POOLING_CLS`, `POOLING_RANK`."""
    labels: tuple[str, ...]
    """Names of a cross-encoder's outputs in the order of their ids; empty if there are none."""
    activation: str | None
    """`sigmoid` or `identity`; None: the folder declares none, or is no cross-encoder."""
    tokens_max: int
    """Tokens of a sequence that its publisher gives it, at most `context_length`."""
    tokens_from: str
    """The file that says so."""
    pooling_from: str | None
    """The file that names the pooling; None: none does."""

    @property
    def is_cross_encoder(self) -> bool:
        """True if the model scores pairs of texts instead of embedding texts."""
        return self.pooling == POOLING_RANK


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        InvalidModelFile: the file cannot be read, or has more than `JSON_BYTES_MAX` bytes.
    """
    try:
        with open_regular(path) as stream:
            raw = stream.read(JSON_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidModelFile(path, f"cannot be read: {error.strerror or error}") from error
    if len(raw) > JSON_BYTES_MAX:
        raise InvalidModelFile(path, f"more than {JSON_BYTES_MAX} bytes")
    return raw


def decode(path: Path, raw: bytes, shape: type[_T]) -> _T:
    """Decode a JSON document as the type `shape`; unknown fields are ignored.

    Raises:
        InvalidModelFile: it is not JSON, or a field is missing or has another type.
    """
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidModelFile(path, str(error)) from error


def read_settings(folder: Path) -> BertSettings:
    """Read the settings of a model folder.

    Raises:
        InvalidModelFile: a file is missing or damaged, or the model is no BERT encoder, or one
            that would not be computed exactly here.
    """
    path = folder / CONFIG
    if not path.exists():
        _refuse(folder, _no_model(folder))
    raw = read_bytes(path)
    kind = decode(path, raw, _Kind).model_type
    if kind != "bert":
        _refuse(path, f"model_type {kind!r} is not supported; 'bert' is")
    config = decode(path, raw, _Config)
    _check_encoder(path, config)
    architecture = _architecture(path, config)
    ranks = architecture == _CROSS_ENCODER
    pooling_path = folder / POOLING_PATH / CONFIG
    tokens_max, tokens_from = _tokens(folder, config.max_position_embeddings)
    return BertSettings(
        embedding_length=config.hidden_size,
        block_count=config.num_hidden_layers,
        head_count=config.num_attention_heads,
        feed_forward_length=config.intermediate_size,
        vocab_size=config.vocab_size,
        context_length=config.max_position_embeddings,
        token_type_count=config.type_vocab_size,
        layer_norm_epsilon=config.layer_norm_eps,
        pooling=POOLING_RANK if ranks else _pooling(folder),
        labels=_labels(path, config.id2label) if ranks else (),
        activation=_activation(path, config) if ranks else None,
        tokens_max=tokens_max,
        tokens_from=tokens_from,
        pooling_from=f"{POOLING_PATH}/{CONFIG}" if pooling_path.exists() else None,
    )


def _no_model(folder: Path) -> str:
    """Return why a folder without config.json is refused."""
    files = sorted(path.name for path in folder.glob("*.gguf"))[:3]
    if files:
        return f"give a file in it, not the folder: {', '.join(files)}"
    return f"there is no {CONFIG} in it: it is no model folder of Hugging Face"


def _tokens(folder: Path, context: int) -> tuple[int, str]:
    """Return the publisher's limit on a sequence and the file it is from.

    sentence-transformers cuts at `max_seq_length`, which can be far below what the weights take;
    the tokenizer's `model_max_length` is often a placeholder and only lowers the limit.
    """
    found, origin = context, CONFIG
    path = folder / SENTENCES
    if path.exists():
        named = decode(path, read_bytes(path), _Sentences).max_seq_length
        if named is not None and TOKENS_MIN <= named < found:
            found, origin = named, SENTENCES
    path = folder / TOKENIZER
    if path.exists():
        length = decode(path, read_bytes(path), _Tokenizer).model_max_length
        if length is not None and TOKENS_MIN <= length < found:
            found, origin = int(length), TOKENIZER
    return found, origin


def _check_encoder(path: Path, config: _Config) -> None:
    if config.hidden_act != "gelu":
        _refuse(path, f"hidden_act {config.hidden_act!r} is not supported; 'gelu' is")
    if config.position_embedding_type not in {None, "absolute"}:
        kind = config.position_embedding_type
        _refuse(path, f"position_embedding_type {kind!r} is not supported; 'absolute' is")
    if config.is_decoder or config.add_cross_attention:
        _refuse(path, "decoders are not supported; encoders are")
    if config.hidden_size % config.num_attention_heads:
        _refuse(path, "hidden_size is not a multiple of num_attention_heads")


def _architecture(path: Path, config: _Config) -> str:
    named = config.architectures or [_EMBEDDER]
    if len(named) != 1 or named[0] not in {_EMBEDDER, _CROSS_ENCODER}:
        _refuse(
            path,
            f"architectures {named} is not supported; {_EMBEDDER} and {_CROSS_ENCODER} are",
        )
    return named[0]


def _labels(path: Path, id2label: dict[int, str] | None) -> tuple[str, ...]:
    if id2label is None:
        return ()
    if sorted(id2label) != list(range(len(id2label))):
        _refuse(path, "the ids of id2label do not count up from 0")
    return tuple(id2label[index] for index in range(len(id2label)))


def _activation(path: Path, config: _Config) -> str | None:
    # Newer cross-encoders declare it below `sentence_transformers`, older ones at the top level.
    head = config.sentence_transformers
    declared = head.activation_fn if head else None
    declared = declared or config.sbert_ce_default_activation_function
    if declared is None:
        return None
    found = _ACTIVATIONS.get(declared.rpartition(".")[2])
    if found is None:
        _refuse(path, f"activation {declared!r} is not supported; Sigmoid and Identity are")
    return found


def _pooling(folder: Path) -> int:
    path = folder / "modules.json"
    if path.exists():
        for module in decode(path, read_bytes(path), list[_Module]):
            kind = module.type.rpartition(".")[2]
            if kind not in _MODULES:
                _refuse(path, f"module {kind!r} is not supported; {sorted(_MODULES)} are")
            # Only the usual folder is read below: pooling settings elsewhere would be ignored.
            if kind == "Pooling" and module.path != POOLING_PATH:
                _refuse(path, f"pooling in {module.path!r} is not supported; {POOLING_PATH!r} is")
    path = folder / POOLING_PATH / "config.json"
    if not path.exists():
        return POOLING_MEAN
    fields: dict[str, Any] = decode(path, read_bytes(path), dict[str, Any])
    modes = {key for key, value in fields.items() if key.startswith("pooling_mode_") and value}
    if isinstance(fields.get("pooling_mode"), str):
        modes.add(f"pooling_mode_{fields['pooling_mode']}")
    if modes in ({"pooling_mode_mean_tokens"}, {"pooling_mode_mean"}):
        return POOLING_MEAN
    if modes in ({"pooling_mode_cls_token"}, {"pooling_mode_cls"}):
        return POOLING_CLS
    raise InvalidModelFile(path, f"pooling {sorted(modes)} is not supported; mean or cls is")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InvalidModelFile(path, reason)
