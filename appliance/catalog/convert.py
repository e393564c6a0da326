"""Convert: write a Hugging Face folder of the BERT family as one GGUF file.

Decides the names, types and order of everything that is written; the same folder always gives the
same bytes. Unlike llama.cpp's own converter it keeps a cross-encoder's pooler, without which the
scores are wrong.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray

from appliance.catalog.folder import BertSettings, read_settings
from appliance.catalog.safetensors import Safetensors, read_safetensors
from appliance.catalog.vocabulary import Vocabulary, spell_vocabulary
from appliance.catalog.wordpiece import Wordpiece, read_wordpiece
from appliance.core.errors import InvalidModelFile

Array: TypeAlias = NDArray[np.float32] | NDArray[np.float16]

_ARCHITECTURE = "bert"
_FILE_TYPE_F16 = 1
_QUANTIZATION_VERSION = 2
_PREFIX = "bert."
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
_POOLER, _CLASSIFIER = "bert.pooler.dense", "classifier"
_LEGACY = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
"""Parameter names of current checkpoints, and what the oldest ones call them."""


@dataclass(frozen=True, slots=True)
class _Placement:
    """One tensor: its name in the folder, and its name and type in the GGUF file."""

    source: str
    target: str
    shape: tuple[int, ...]
    halved: bool = False
    """True: stored as float16; False: as float32."""


Progress: TypeAlias = Callable[[int, int], None]
"""Told the bytes that are done and all there are; what it raises ends the work."""


def convert_folder(
    folder: Path, out: Path, *, name: str | None = None, progress: Progress | None = None
) -> None:
    """Write the model in `folder` to the GGUF file `out`, completely or not at all.

    The folder must hold config.json, model.safetensors and either tokenizer.json or vocab.txt. It
    may hold tokenizer_config.json, special_tokens_map.json, modules.json and 1_Pooling/config.json.
    `name` is written as `general.name`; with None it is the folder's name without its path.

    Raises:
        InvalidModelFile: the folder is damaged or incomplete, or the model is not supported.
        OSError: `out` cannot be written.
    """
    settings = read_settings(folder)
    weights = read_safetensors(folder / "model.safetensors")
    placements, labels = _plan(settings, weights)
    wordpiece = read_wordpiece(folder)
    vocabulary = spell_vocabulary(wordpiece, settings.vocab_size)

    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(temporary, _ARCHITECTURE)
    try:
        _add_settings(writer, settings, labels, name or folder.resolve().name)
        _add_vocabulary(writer, settings, vocabulary)
        _add_wordpiece(writer, wordpiece)
        _write(writer, weights, placements, progress or _unwatched)
        writer.close()
        _sync(temporary)
        temporary.replace(out)
        _sync(out.parent)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def _plan(settings: BertSettings, weights: Safetensors) -> tuple[list[_Placement], tuple[str, ...]]:
    """Return every tensor to write, after checking presence and shape, and the output labels."""
    prefix = _PREFIX if _PREFIX + _WORD_EMBEDDINGS in weights.tensors else ""
    placements = [*_embeddings(settings, prefix)]
    for index in range(settings.block_count):
        placements += _block(settings, prefix, index)
    labels: tuple[str, ...] = ()
    if settings.is_cross_encoder:
        labels = _labels(settings, weights)
        placements += _head(settings, len(labels))
    return [_located(weights, placement) for placement in placements], labels


def _embeddings(settings: BertSettings, prefix: str) -> Iterator[_Placement]:
    width = settings.embedding_length
    source = f"{prefix}embeddings"
    rows = settings.vocab_size
    yield _Placement(prefix + _WORD_EMBEDDINGS, "token_embd.weight", (rows, width), halved=True)
    rows = settings.context_length
    yield _Placement(f"{source}.position_embeddings.weight", "position_embd.weight", (rows, width))
    rows = settings.token_type_count
    yield _Placement(f"{source}.token_type_embeddings.weight", "token_types.weight", (rows, width))
    yield from _norm(f"{source}.LayerNorm", "token_embd_norm", width)


def _block(settings: BertSettings, prefix: str, index: int) -> Iterator[_Placement]:
    width, inner = settings.embedding_length, settings.feed_forward_length
    source, target = f"{prefix}encoder.layer.{index}", f"blk.{index}"
    for theirs, ours in (("query", "attn_q"), ("key", "attn_k"), ("value", "attn_v")):
        yield from _linear(f"{source}.attention.self.{theirs}", f"{target}.{ours}", width, width)
    yield from _linear(f"{source}.attention.output.dense", f"{target}.attn_output", width, width)
    yield from _norm(f"{source}.attention.output.LayerNorm", f"{target}.attn_output_norm", width)
    yield from _linear(f"{source}.intermediate.dense", f"{target}.ffn_up", inner, width)
    yield from _linear(f"{source}.output.dense", f"{target}.ffn_down", width, inner)
    yield from _norm(f"{source}.output.LayerNorm", f"{target}.layer_output_norm", width)


def _head(settings: BertSettings, outputs: int) -> Iterator[_Placement]:
    # The head is small and determines the score, so it stays float32.
    width = settings.embedding_length
    yield _Placement(f"{_POOLER}.weight", "cls.weight", (width, width))
    yield _Placement(f"{_POOLER}.bias", "cls.bias", (width,))
    yield _Placement(f"{_CLASSIFIER}.weight", "cls.output.weight", (outputs, width))
    yield _Placement(f"{_CLASSIFIER}.bias", "cls.output.bias", (outputs,))


def _linear(source: str, target: str, rows: int, columns: int) -> Iterator[_Placement]:
    yield _Placement(f"{source}.weight", f"{target}.weight", (rows, columns), halved=True)
    yield _Placement(f"{source}.bias", f"{target}.bias", (rows,))


def _norm(source: str, target: str, width: int) -> Iterator[_Placement]:
    yield _Placement(f"{source}.weight", f"{target}.weight", (width,))
    yield _Placement(f"{source}.bias", f"{target}.bias", (width,))


def _labels(settings: BertSettings, weights: Safetensors) -> tuple[str, ...]:
    # transformers omits id2label from config.json when it equals the default of two labels, so the
    # number of outputs is taken from the classifier's rows.
    stored = weights.tensors.get(f"{_CLASSIFIER}.weight")
    if stored is None or not stored.shape or not stored.shape[0]:
        raise InvalidModelFile(weights.path, f"{_CLASSIFIER}.weight is missing: no cross-encoder")
    outputs = stored.shape[0]
    labels = settings.labels or tuple(f"LABEL_{index}" for index in range(outputs))
    if len(labels) != outputs:
        reason = f"{_CLASSIFIER}.weight has {outputs} rows; config.json names {len(labels)} labels"
        raise InvalidModelFile(weights.path, reason)
    return labels


def _located(weights: Safetensors, placement: _Placement) -> _Placement:
    source = placement.source
    for current, legacy in _LEGACY.items():
        if source not in weights.tensors and source.endswith(current):
            source = source.removesuffix(current) + legacy
    stored = weights.tensors.get(source)
    if stored is None:
        raise InvalidModelFile(weights.path, f"tensor {placement.source} is missing")
    if stored.shape != placement.shape:
        reason = f"{source} has shape {stored.shape}; config.json asks for {placement.shape}"
        raise InvalidModelFile(weights.path, reason)
    return _Placement(source, placement.target, placement.shape, placement.halved)


def _add_settings(writer: Any, settings: BertSettings, labels: tuple[str, ...], name: str) -> None:
    writer.add_string("general.type", "model")
    writer.add_string("general.name", name)
    writer.add_uint32("general.file_type", _FILE_TYPE_F16)
    writer.add_uint32("general.quantization_version", _QUANTIZATION_VERSION)
    writer.add_uint32("bert.context_length", settings.context_length)
    writer.add_uint32("bert.embedding_length", settings.embedding_length)
    writer.add_uint32("bert.block_count", settings.block_count)
    writer.add_uint32("bert.feed_forward_length", settings.feed_forward_length)
    writer.add_uint32("bert.attention.head_count", settings.head_count)
    writer.add_float32("bert.attention.layer_norm_epsilon", settings.layer_norm_epsilon)
    writer.add_bool("bert.attention.causal", val=False)
    writer.add_uint32("bert.pooling_type", settings.pooling)
    if len(labels) > 1:
        # llama.cpp takes the number of outputs from the length of this list; without it, it is 1.
        writer.add_array("bert.classifier.output_labels", list(labels))
    if settings.activation is not None:
        writer.add_string("gigarouter.head.activation", settings.activation)


def _add_vocabulary(writer: Any, settings: BertSettings, vocabulary: Vocabulary) -> None:
    writer.add_string("tokenizer.ggml.model", "bert")
    writer.add_string("tokenizer.ggml.pre", "default")
    writer.add_array("tokenizer.ggml.tokens", list(vocabulary.tokens))
    writer.add_array("tokenizer.ggml.token_type", list(vocabulary.kinds))
    writer.add_uint32("tokenizer.ggml.token_type_count", settings.token_type_count)
    writer.add_uint32("tokenizer.ggml.bos_token_id", vocabulary.cls)
    writer.add_uint32("tokenizer.ggml.eos_token_id", vocabulary.sep)
    writer.add_uint32("tokenizer.ggml.unknown_token_id", vocabulary.unk)
    # llama.cpp misspells this key.
    writer.add_uint32("tokenizer.ggml.seperator_token_id", vocabulary.sep)
    writer.add_uint32("tokenizer.ggml.padding_token_id", vocabulary.pad)
    writer.add_uint32("tokenizer.ggml.cls_token_id", vocabulary.cls)
    if vocabulary.mask is not None:
        writer.add_uint32("tokenizer.ggml.mask_token_id", vocabulary.mask)
    # With these three, llama.cpp's own server joins a pair as `[CLS] a [SEP] b [SEP]`.
    writer.add_bool("tokenizer.ggml.add_bos_token", val=True)
    writer.add_bool("tokenizer.ggml.add_eos_token", val=True)
    writer.add_bool("tokenizer.ggml.add_sep_token", val=False)


def _add_wordpiece(writer: Any, wordpiece: Wordpiece) -> None:
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", wordpiece.lowercase)
    if wordpiece.strip_accents is not None:
        writer.add_bool("tokenizer.ggml.normalizer.strip_accents", wordpiece.strip_accents)
        writer.add_bool("gigarouter.tokenizer.strip_accents", wordpiece.strip_accents)
    writer.add_bool("gigarouter.tokenizer.lowercase", wordpiece.lowercase)
    writer.add_bool("gigarouter.tokenizer.clean_text", wordpiece.clean_text)
    writer.add_bool("gigarouter.tokenizer.chinese_chars", wordpiece.chinese_chars)
    writer.add_uint32("gigarouter.tokenizer.max_word_chars", wordpiece.max_word_chars)


def _unwatched(_done: int, _total: int) -> None:
    """Let the work go on."""


def _write(
    writer: Any, weights: Safetensors, placements: list[_Placement], progress: Progress
) -> None:
    done = total = 0
    for placement in placements:
        kind = np.dtype(np.float16 if placement.halved else np.float32)
        size = int(np.prod(placement.shape)) * kind.itemsize
        total += size
        writer.add_tensor_info(placement.target, placement.shape, kind, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    # One tensor at a time, so that memory never holds the whole model.
    for placement in placements:
        progress(done, total)
        array = _stored(weights, placement)
        writer.write_tensor_data(array)
        done += array.nbytes
    progress(total, total)


def _stored(weights: Safetensors, placement: _Placement) -> Array:
    floats: Array = weights.read_f32(placement.source)
    if placement.halved:
        with np.errstate(over="ignore"):
            floats = floats.astype(np.float16)
    if not np.isfinite(floats).all():
        reason = f"{placement.source} has values that are not finite as {floats.dtype}"
        raise InvalidModelFile(weights.path, reason)
    return floats


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
