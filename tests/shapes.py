"""Shapes: files as large as the published ones of the catalogue, with weights drawn from a seed.

Owns the shape of each entry, as its publisher's configuration gives it, and a writer of files of
that shape: architecture, width, layers, vocabulary, context, pooling and quantization are those of
the published file, so that size, memory and speed are its too; the meaning is not. A tensor repeats
one drawn piece, so that writing takes no longer than the disk.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization

from tests import decoders, encoders, models
from tests.decoders import POOLING, add_key

Kind = Literal["bert", "xlmr", "nomic-bert", "nomic-bert-moe", "modern-bert", "qwen3", "gemma"]
F32, F16, Q8_0 = Quantization.F32, Quantization.F16, Quantization.Q8_0
Q4_K, Q6_K = Quantization.Q4_K, Quantization.Q6_K
PERIOD = 1021
"""Blocks of the piece that a tensor repeats: prime, so that its rows differ."""
FILLER = "\ue000"
"""Begins the tokens that only fill a vocabulary: no text has it."""
JUDGE = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")


@dataclass(frozen=True)
class Shape:
    """How large a model is."""

    kind: Kind
    blocks: int
    width: int
    inner: int
    heads: int
    vocabulary: int
    context: int
    pooling: str
    quantization: Literal["Q8_0", "F16", "Q4_K_M"] = "Q8_0"
    kv_heads: int = 0
    head: int = 0
    """Of a decoder: numbers of one head."""
    experts: int = 0
    window: int = 0

    @property
    def architecture(self) -> str:
        """Return its name in GGUF."""
        return {"xlmr": "bert", "gemma": "gemma-embedding"}.get(self.kind, self.kind)


def _qwen(
    blocks: int, width: int, inner: int, heads: int, quantization: Any, pooling: str
) -> Shape:
    return Shape(
        "qwen3",
        blocks,
        width,
        inner,
        heads,
        151_669,
        32_768,
        pooling,
        quantization,
        kv_heads=8,
        head=128,
    )


SHAPES: Mapping[str, Shape] = {
    "BAAI/bge-small-en-v1.5": Shape("bert", 12, 384, 1536, 12, 30_522, 512, "cls"),
    "Qwen/Qwen3-Embedding-0.6B": _qwen(28, 1024, 3072, 16, "Q8_0", "last"),
    "Qwen/Qwen3-Embedding-4B": _qwen(36, 2560, 9728, 32, "Q4_K_M", "last"),
    "Qwen/Qwen3-Embedding-8B": _qwen(36, 4096, 12_288, 32, "Q4_K_M", "last"),
    "google/embeddinggemma-300m": Shape(
        "gemma", 24, 768, 1152, 3, 262_144, 2048, "mean", kv_heads=1, head=256, window=512
    ),
    "BAAI/bge-m3": Shape("xlmr", 24, 1024, 4096, 16, 250_002, 8192, "cls"),
    "nomic-ai/nomic-embed-text-v1.5": Shape("nomic-bert", 12, 768, 3072, 12, 30_522, 2048, "mean"),
    "nomic-ai/nomic-embed-text-v2-moe": Shape(
        "nomic-bert-moe", 12, 768, 3072, 12, 250_048, 512, "mean", experts=8
    ),
    "Snowflake/snowflake-arctic-embed-l-v2.0": Shape(
        "xlmr", 24, 1024, 4096, 16, 250_002, 8192, "cls"
    ),
    "mixedbread-ai/mxbai-embed-large-v1": Shape(
        "bert", 24, 1024, 4096, 16, 30_522, 512, "cls", "F16"
    ),
    "intfloat/multilingual-e5-small": Shape("xlmr", 12, 384, 1536, 12, 250_037, 512, "mean"),
    "ibm-granite/granite-embedding-small-english-r2": Shape(
        "modern-bert", 12, 384, 1536, 12, 50_368, 8192, "cls", window=128
    ),
    "ibm-granite/granite-embedding-107m-multilingual": Shape(
        "xlmr", 6, 384, 1536, 12, 250_002, 512, "cls", "F16"
    ),
    "cross-encoder/ms-marco-MiniLM-L6-v2": Shape("bert", 6, 384, 1536, 12, 30_522, 512, "rank"),
    "Qwen/Qwen3-Reranker-0.6B": _qwen(28, 1024, 3072, 16, "Q8_0", "rank"),
    "BAAI/bge-reranker-base": Shape("xlmr", 12, 768, 3072, 12, 250_002, 512, "rank"),
    "BAAI/bge-reranker-v2-m3": Shape("xlmr", 24, 1024, 4096, 16, 250_002, 8192, "rank"),
    "Alibaba-NLP/gte-reranker-modernbert-base": Shape(
        "modern-bert", 22, 768, 1152, 12, 50_368, 8192, "rank", window=128
    ),
}
"""By the id of the entry."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: its name in GGUF, its shape with rows first, and how its numbers are stored."""

    name: str
    shape: tuple[int, ...]
    kind: Quantization

    @property
    def bytes(self) -> int:
        """Return its size."""
        numbers, size = gguf.GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // numbers * size


def tensors(shape: Shape) -> list[Tensor]:
    """Return every tensor of a file of this shape, in the file's order."""
    found = list(_edges(shape))
    for index in range(shape.blocks):
        found += _block(shape, index)
    if shape.pooling == "rank":
        found += _rank_head(shape)
    return found


def size_of(shape: Shape) -> int:
    """Return about how many bytes the file has, without its header."""
    return sum(tensor.bytes for tensor in tensors(shape))


def _matrix(shape: Shape, name: str, rows: int, columns: int, *, better: bool = False) -> Tensor:
    kind = {"Q8_0": Q8_0, "F16": F16, "Q4_K_M": Q6_K if better else Q4_K}[shape.quantization]
    return Tensor(f"{name}.weight", (rows, columns), kind)


def _linear(shape: Shape, name: str, rows: int, columns: int) -> list[Tensor]:
    return [_matrix(shape, name, rows, columns), Tensor(f"{name}.bias", (rows,), F32)]


def _norm(shape: Shape, name: str) -> list[Tensor]:
    """Return a layer norm: with a bias where it is BERT's."""
    found = [Tensor(f"{name}.weight", (shape.width,), F32)]
    if shape.kind in {"bert", "xlmr", "nomic-bert", "nomic-bert-moe"}:
        found.append(Tensor(f"{name}.bias", (shape.width,), F32))
    return found


def _edges(shape: Shape) -> Iterator[Tensor]:
    """Yield what stands before and after the blocks."""
    width = shape.width
    yield _matrix(shape, "token_embd", shape.vocabulary, width, better=True)
    if shape.kind in {"bert", "xlmr"}:
        yield Tensor("position_embd.weight", (shape.context, width), F32)
    if shape.kind == "bert":
        yield Tensor("token_types.weight", (2, width), F32)
    elif shape.kind in {"xlmr", "nomic-bert-moe"}:
        yield Tensor("token_types.weight", (width,), F32)
    elif shape.kind == "nomic-bert":
        yield Tensor("token_types.weight", (2, width), F32)
    if shape.kind in {"qwen3", "gemma", "modern-bert"}:
        yield from _norm(shape, "output_norm")
    if shape.kind not in {"qwen3", "gemma"}:
        yield from _norm(shape, "token_embd_norm")
    if shape.kind == "gemma":
        yield _matrix(shape, "dense_2", 4 * width, width)
        yield _matrix(shape, "dense_3", width, 4 * width)


def _block(shape: Shape, index: int) -> list[Tensor]:
    block = f"blk.{index}."
    if shape.kind in {"qwen3", "gemma"}:
        return _decoder_block(shape, block, index)
    if shape.kind == "modern-bert":
        return _modern_block(shape, block, index)
    if shape.kind in {"bert", "xlmr"}:
        return _bert_block(shape, block)
    return _nomic_block(shape, block, index)


def _bert_block(shape: Shape, block: str) -> list[Tensor]:
    width, found = shape.width, []
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        found += _linear(shape, block + part, width, width)
    found += _norm(shape, f"{block}attn_output_norm")
    found += _linear(shape, f"{block}ffn_up", shape.inner, width)
    found += _linear(shape, f"{block}ffn_down", width, shape.inner)
    return found + _norm(shape, f"{block}layer_output_norm")


def _nomic_block(shape: Shape, block: str, index: int) -> list[Tensor]:
    width, inner = shape.width, shape.inner
    norms = _norm(shape, f"{block}attn_output_norm") + _norm(shape, f"{block}layer_output_norm")
    if not shape.experts:
        return [
            *norms,
            _matrix(shape, f"{block}attn_qkv", 3 * width, width),
            _matrix(shape, f"{block}attn_output", width, width),
            _matrix(shape, f"{block}ffn_up", inner, width),
            _matrix(shape, f"{block}ffn_gate", inner, width),
            _matrix(shape, f"{block}ffn_down", width, inner),
        ]
    found = norms + _linear(shape, f"{block}attn_qkv", 3 * width, width)
    found += _linear(shape, f"{block}attn_output", width, width)
    if index % 2:
        found.append(Tensor(f"{block}ffn_gate_inp.weight", (shape.experts, width), F32))
        found.append(Tensor(f"{block}ffn_up_exps.weight", (shape.experts, inner, width), Q8_0))
        found.append(Tensor(f"{block}ffn_down_exps.weight", (shape.experts, width, inner), Q8_0))
        return found
    found += _linear(shape, f"{block}ffn_up", inner, width)
    return found + _linear(shape, f"{block}ffn_down", width, inner)


def _modern_block(shape: Shape, block: str, index: int) -> list[Tensor]:
    width, inner = shape.width, shape.inner
    found = _norm(shape, f"{block}attn_norm") if index else []
    return [
        *found,
        _matrix(shape, f"{block}attn_qkv", 3 * width, width),
        _matrix(shape, f"{block}attn_output", width, width),
        *_norm(shape, f"{block}ffn_norm"),
        _matrix(shape, f"{block}ffn_up", 2 * inner, width),
        _matrix(shape, f"{block}ffn_down", width, inner),
    ]


def _decoder_block(shape: Shape, block: str, index: int) -> list[Tensor]:
    width, inner = shape.width, shape.inner
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    # llama.cpp's Q4_K_M stores the values and the way down better in these blocks.
    eighth = shape.blocks // 8
    better = index < eighth or index >= 7 * shape.blocks // 8 or (index - eighth) % 3 == 2
    found = [
        *_norm(shape, f"{block}attn_norm"),
        _matrix(shape, f"{block}attn_q", queries, width),
        _matrix(shape, f"{block}attn_k", keys, width),
        _matrix(shape, f"{block}attn_v", keys, width, better=better),
        Tensor(f"{block}attn_q_norm.weight", (shape.head,), F32),
        Tensor(f"{block}attn_k_norm.weight", (shape.head,), F32),
        _matrix(shape, f"{block}attn_output", width, queries),
        *_norm(shape, f"{block}ffn_norm"),
        _matrix(shape, f"{block}ffn_gate", inner, width),
        _matrix(shape, f"{block}ffn_up", inner, width),
        _matrix(shape, f"{block}ffn_down", width, inner, better=better),
    ]
    if shape.kind == "gemma":
        found += _norm(shape, f"{block}post_attention_norm")
        found += _norm(shape, f"{block}post_ffw_norm")
    return found


def _rank_head(shape: Shape) -> list[Tensor]:
    width = shape.width
    if shape.kind == "qwen3":
        return [Tensor("cls.output.weight", (2, width), F16)]
    if shape.kind == "modern-bert":
        return [
            Tensor("cls.weight", (width, width), F16),
            *_norm(shape, "cls.norm"),
            Tensor("cls.output.weight", (1, width), F16),
            Tensor("cls.output.bias", (1,), F32),
        ]
    return [
        Tensor("cls.weight", (width, width), F16),
        Tensor("cls.bias", (width,), F32),
        Tensor("cls.output.weight", (1, width), F16),
        Tensor("cls.output.bias", (1,), F32),
    ]


# -- numbers ---------------------------------------------------------------------------------------


def drawn(tensor: Tensor, seed: int) -> np.ndarray:
    """Return a tensor's bytes, uint8[rows, bytes of a row]; its numbers are small and finite."""
    random = np.random.default_rng(seed)
    is_vector = len(tensor.shape) == 1 and not tensor.name.startswith("token_types")
    if is_vector:
        around = 1.0 if tensor.name.endswith(".weight") else 0.0
        numbers = around + 0.1 * random.standard_normal(tensor.shape, dtype=np.float32)
        return numbers.astype(np.float32).view(np.uint8)
    scale = tensor.shape[-1] ** -0.5 * (4 if tensor.name.startswith("token_embd") else 1)
    piece = _piece(tensor.kind, random, scale)
    return np.resize(piece, tensor.bytes).reshape(*tensor.shape[:-1], -1)


def _piece(kind: Quantization, random: np.random.Generator, scale: float) -> np.ndarray:
    """Return `PERIOD` blocks of numbers with this standard deviation, uint8[bytes]."""
    if kind not in {Q4_K, Q6_K}:
        numbers = random.standard_normal((PERIOD, 32), dtype=np.float32) * np.float32(scale)
        return np.ascontiguousarray(gguf.quants.quantize(numbers, kind)).view(np.uint8).ravel()
    # Drawn bits are evenly spread whole numbers: of 0 to 15, less their mean, or of -32 to 31.
    count = 16 if kind == Q4_K else 64
    step = np.float16(scale / 8 / np.sqrt((count**2 - 1) / 12))
    step_bytes = np.tile(np.array([step]).view(np.uint8), (PERIOD, 1))
    if kind == Q4_K:
        least = np.tile(np.array([step * np.float16(7.5)]).view(np.uint8), (PERIOD, 1))
        # All eight scales and all eight minima are 8.
        scales = np.tile(np.array([8] * 8 + [0x88] * 4, np.uint8), (PERIOD, 1))
        bits = random.integers(0, 256, (PERIOD, 128), dtype=np.uint8)
        return np.hstack([step_bytes, least, scales, bits]).ravel()
    bits = random.integers(0, 256, (PERIOD, 192), dtype=np.uint8)
    scales = np.full((PERIOD, 16), 8, np.uint8)
    return np.hstack([bits, scales, step_bytes]).ravel()


# -- vocabularies ----------------------------------------------------------------------------------


def tokenizer(shape: Shape) -> dict[str, Any]:
    """Return what a file says under `tokenizer.ggml.`: enough for ASCII, and as many tokens."""
    if shape.kind in {"xlmr", "nomic-bert-moe"}:
        found = dict(encoders.XLMR_TOKENIZER)
        return _filled(found, shape.vocabulary, scores=True)
    if shape.kind == "modern-bert":
        return _filled(dict(encoders.MODERN_TOKENIZER), shape.vocabulary)
    if shape.kind == "qwen3":
        found = dict(decoders.BPE)
        found["tokens"] = (*found["tokens"], *JUDGE)
        found["token_type"] = [*found["token_type"], 3, 3, 3, 3]
        return _filled(found, shape.vocabulary)
    return (
        _filled(_gemma(), shape.vocabulary, scores=True)
        if shape.kind == "gemma"
        else _filled(_wordpiece(), shape.vocabulary)
    )


def _filled(found: dict[str, Any], size: int, *, scores: bool = False) -> dict[str, Any]:
    missing = size - len(found["tokens"])
    assert missing >= 0
    found["tokens"] = [*found["tokens"], *(f"{FILLER}{index:x}" for index in range(missing))]
    found["token_type"] = [*found["token_type"], *[1] * missing]
    if scores:
        found["scores"] = [*found["scores"], *[-20.0] * missing]
    return found


def _wordpiece() -> dict[str, Any]:
    tokens = [
        token
        if token in models.SPECIALS
        else token.removeprefix("##")
        if token.startswith("##")
        else encoders.SPACE + token
        for token in models.VOCABULARY
    ]
    return {
        "model": "bert",
        "pre": "default",
        "tokens": tokens,
        "token_type": [3] * len(models.SPECIALS) + [1] * (len(tokens) - len(models.SPECIALS)),
        "token_type_count": 2,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "unknown_token_id": 1,
        "seperator_token_id": 3,
        "padding_token_id": 0,
        "cls_token_id": 2,
        "mask_token_id": 4,
    }


def _gemma() -> dict[str, Any]:
    letters = [encoders.SPACE, *encoders.LETTERS]
    letters += [encoders.SPACE + letter for letter in encoders.LETTERS]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *bytes_, *letters]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": [0.0] * (4 + 256) + [-3.0] * len(letters),
        "token_type": [3, 3, 3, 2] + [6] * 256 + [1] * len(letters),
        "bos_token_id": 2,
        "eos_token_id": 1,
        "unknown_token_id": 3,
        "padding_token_id": 0,
        "add_bos_token": True,
        "add_eos_token": True,
        "add_space_prefix": False,
    }


# -- files -----------------------------------------------------------------------------------------


def write(path: Path, shape: Shape, *, seed: int = 1) -> Path:
    """Write a GGUF file of this shape and return its path."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    _add_settings(writer, shape)
    for key, value in tokenizer(shape).items():
        add_key(writer, f"tokenizer.ggml.{key}", value)
    found = tensors(shape)
    for tensor in found:
        numbers, size = gguf.GGML_QUANT_SIZES[tensor.kind]
        as_bytes = (*tensor.shape[:-1], tensor.shape[-1] // numbers * size)
        writer.add_tensor_info(
            tensor.name, as_bytes, np.dtype(np.uint8), tensor.bytes, raw_dtype=tensor.kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, tensor in enumerate(found):
        writer.write_tensor_data(drawn(tensor, seed * 10_000 + number))
    writer.close()
    return path


def _add_settings(writer: gguf.GGUFWriter, shape: Shape) -> None:
    name = shape.architecture
    writer.add_name("shape-true")
    writer.add_file_type({"F16": 1, "Q8_0": 7, "Q4_K_M": 15}[shape.quantization])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    if shape.pooling != "rank":
        writer.add_uint32(f"{name}.pooling_type", POOLING[shape.pooling])
    if shape.kind in {"qwen3", "gemma"}:
        writer.add_head_count_kv(shape.kv_heads)
        writer.add_key_length(shape.head)
        writer.add_value_length(shape.head)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(1_000_000.0)
    else:
        writer.add_bool(f"{name}.attention.causal", val=False)
        writer.add_layer_norm_eps(1e-5 if shape.kind == "xlmr" else 1e-12)
    if shape.kind == "qwen3" and shape.pooling == "rank":
        writer.add_array(f"{name}.classifier.output_labels", ["yes", "no"])
    if shape.kind == "gemma":
        writer.add_sliding_window(shape.window)
        for part, given, made in (("2", 1, 4), ("3", 4, 1)):
            writer.add_uint32(f"{name}.dense_{part}_feat_in", given * shape.width)
            writer.add_uint32(f"{name}.dense_{part}_feat_out", made * shape.width)
    if shape.kind in {"nomic-bert", "nomic-bert-moe"}:
        writer.add_rope_freq_base(1_000.0 if shape.kind == "nomic-bert" else 10_000.0)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
        writer.add_uint32(f"{name}.moe_every_n_layers", 2)
    if shape.kind == "modern-bert":
        writer.add_sliding_window(shape.window)
        writer.add_uint32(f"{name}.attention.sliding_window_pattern", 3)
        writer.add_rope_freq_base(160_000.0)
        writer.add_float32(f"{name}.rope.freq_base_swa", 10_000.0)
        writer.add_uint32(f"{name}.rope.dimension_count", shape.width // shape.heads)
        writer.add_vocab_size(shape.vocabulary)


def write_folder(folder: Path, shape: Shape, *, seed: int = 1) -> Path:
    """Write a BERT of this shape as its publisher does, as safetensors, and return the folder."""
    labels = 1 if shape.pooling == "rank" else None
    models.write_tiny_bert_folder(
        folder,
        seed=seed,
        labels=labels,
        config={
            "hidden_size": shape.width,
            "intermediate_size": shape.inner,
            "max_position_embeddings": shape.context,
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.blocks,
            "vocab_size": shape.vocabulary,
        },
        tensors=dict(_safetensors(shape, seed, labels)),
    )
    document = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    for index in range(len(vocabulary), shape.vocabulary):
        vocabulary[f"{FILLER}{index:x}"] = index
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))
    return folder


def _safetensors(
    shape: Shape, seed: int, labels: int | None
) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yield the tensors of a folder by their names there, float32."""
    random = np.random.default_rng(seed)
    prefix, width, inner = "" if labels is None else "bert.", shape.width, shape.inner

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, np.ndarray]]:
        drawn = random.standard_normal((rows, columns), dtype=np.float32)
        yield f"{name}.weight", drawn * np.float32(columns**-0.5)
        yield f"{name}.bias", 0.1 * random.standard_normal(rows, dtype=np.float32)

    def norm(name: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", 1 + 0.1 * random.standard_normal(width, dtype=np.float32)
        yield f"{name}.bias", 0.1 * random.standard_normal(width, dtype=np.float32)

    for part, rows in (
        ("word", shape.vocabulary),
        ("position", shape.context),
        ("token_type", 2),
    ):
        drawn = random.standard_normal((rows, width), dtype=np.float32)
        yield f"{prefix}embeddings.{part}_embeddings.weight", drawn * np.float32(width**-0.5)
    yield from norm(f"{prefix}embeddings.LayerNorm")
    yield f"{prefix}embeddings.position_ids", np.arange(shape.context, dtype=np.int64)[None]
    for index in range(shape.blocks):
        block = f"{prefix}encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from linear(f"{block}.attention.self.{part}", width, width)
        yield from linear(f"{block}.attention.output.dense", width, width)
        yield from norm(f"{block}.attention.output.LayerNorm")
        yield from linear(f"{block}.intermediate.dense", inner, width)
        yield from linear(f"{block}.output.dense", width, inner)
        yield from norm(f"{block}.output.LayerNorm")
    yield from linear(f"{prefix}pooler.dense", width, width)
    if labels is not None:
        yield from linear("classifier", labels, width)
