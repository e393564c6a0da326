"""Tiny decoders: random files of Qwen3's kind that take milliseconds to make, and what they must
answer.

Owns a byte-level vocabulary, weights drawn from a seed, and a forward pass in float64 that is
written from the architecture's description, with no code of the library under test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_PLAIN = (*range(33, 127), *range(161, 173), *range(174, 256))
_HIDDEN = [byte for byte in range(256) if byte not in _PLAIN]
LETTERS = [chr(256 + _HIDDEN.index(b)) if b in _HIDDEN else chr(b) for b in range(256)]
"""How byte-level vocabularies spell each byte; a space is the letter \u0120."""
MERGES = ("t h", "th e", "\u0120 the", "c a", "ca t", "\u0120 cat", "a t", "s at", "\u0120 sat")
END, START = "<|endoftext|>", "<|startoftext|>"
VOCABULARY = (*LETTERS, *(merge.replace(" ", "") for merge in MERGES), END, START)
"""Tokens by id."""
BPE: Mapping[str, Any] = {
    "model": "gpt2",
    "pre": "qwen2",
    "tokens": VOCABULARY,
    "token_type": [1] * (len(VOCABULARY) - 2) + [3, 3],
    "merges": MERGES,
    "eos_token_id": VOCABULARY.index(END),
    "bos_token_id": VOCABULARY.index(START),
    "padding_token_id": VOCABULARY.index(END),
    "add_bos_token": False,
    "add_eos_token": True,
}
"""What a file says under `tokenizer.ggml.`: as Qwen3-Embedding, a text is closed and not opened."""
POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}


@dataclass(frozen=True)
class Shape:
    """How large a decoder is; queries are wider than the model, as in Qwen3-0.6B."""

    vocabulary: int = len(VOCABULARY)
    width: int = 32
    heads: int = 4
    kv_heads: int = 2
    head: int = 16
    inner: int = 48
    blocks: int = 3
    context: int = 128
    rope_base: float = 10_000.0
    eps: float = 1e-6
    architecture: str = "qwen3"
    """`qwen3` norms each head's queries and keys, `qwen2` adds a bias instead, `llama` does
    neither and rotates neighbours, `gemma3` norms what each half of a block adds, too, and looks
    back over a window in all blocks but every sixth (arXiv 2503.19786)."""
    window: int = 24
    """Gemma's local attention: tokens that it sees, its own included."""
    rope_base_local: float = 10_000.0
    """Gemma's, in blocks with a window."""

    def is_local(self, block: int) -> bool:
        """Say whether a block of Gemma's sees a window only."""
        return self.architecture == "gemma3" and (block + 1) % 6 > 0


TINY = Shape()


def weights(
    shape: Shape = TINY, *, seed: int, labels: int | None = None, tied: bool = True
) -> dict[str, np.ndarray]:
    """Return tensors by their GGUF names, float32, each row an output."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        scale = columns**-0.5
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)

    def norm(size: int) -> np.ndarray:
        return 1 + 0.1 * random.standard_normal(size, dtype=np.float32)

    found = {"token_embd": matrix(shape.vocabulary, shape.width) * 4}
    for index in range(shape.blocks):
        block = f"blk.{index}."
        queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
        found[f"{block}attn_norm"] = norm(shape.width)
        found[f"{block}attn_q"] = matrix(queries, shape.width)
        found[f"{block}attn_k"] = matrix(keys, shape.width)
        found[f"{block}attn_v"] = matrix(keys, shape.width)
        if shape.architecture == "gemma3":
            found[f"{block}post_attention_norm"] = norm(shape.width)
            found[f"{block}post_ffw_norm"] = norm(shape.width)
        if shape.architecture in ("qwen3", "gemma3"):
            found[f"{block}attn_q_norm"] = norm(shape.head)
            found[f"{block}attn_k_norm"] = norm(shape.head)
        if shape.architecture == "qwen2":
            for part, rows in (("q", queries), ("k", keys), ("v", keys)):
                found[f"{block}attn_{part}.bias"] = norm(rows) - 1
        found[f"{block}attn_output"] = matrix(shape.width, queries)
        found[f"{block}ffn_norm"] = norm(shape.width)
        found[f"{block}ffn_gate"] = matrix(shape.inner, shape.width)
        found[f"{block}ffn_up"] = matrix(shape.inner, shape.width)
        found[f"{block}ffn_down"] = matrix(shape.width, shape.inner)
    found["output_norm"] = norm(shape.width)
    if not tied:
        found["output"] = matrix(shape.vocabulary, shape.width)
    if labels is not None:
        found["cls.output"] = matrix(labels, shape.width)
    return found


def write_decoder(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    shape: Shape = TINY,
    *,
    pooling: str | None = "last",
    tokenizer: Mapping[str, Any] = BPE,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    more: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write a decoder and return its path; `more` are keys of the architecture."""
    architecture = shape.architecture
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(shape.rope_base)
    if architecture == "gemma3":
        writer.add_sliding_window(shape.window)
    if pooling is not None:
        writer.add_uint32(f"{architecture}.pooling_type", POOLING[pooling])
    if "cls.output" in tensors:
        named = labels or [f"label-{index}" for index in range(len(tensors["cls.output"]))]
        writer.add_array(f"{architecture}.classifier.output_labels", list(named))
    for key, value in (more or {}).items():
        add_key(writer, f"{architecture}.{key}", value)
    for key, value in tokenizer.items():
        add_key(writer, f"tokenizer.ggml.{key}", value)
    for name, array in tensors.items():
        full = name if name.endswith(".bias") else f"{name}.weight"
        kind = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else quantization
        writer.add_tensor(full, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ROWS = 512
"""Queries whose attention is in memory at once."""


def reference(
    tensors: Mapping[str, np.ndarray],
    tokens: Sequence[int],
    shape: Shape = TINY,
    *,
    precision: type = np.float64,
) -> np.ndarray:
    """Return the last hidden state of every token, [n_tokens, width]."""
    x = tensors["token_embd"][list(tokens)].astype(precision)
    is_gemma = shape.architecture == "gemma3"
    if is_gemma:
        x = x * precision(shape.width**0.5)
    for index in range(shape.blocks):
        own = {
            name.removeprefix(f"blk.{index}."): array.astype(precision)
            for name, array in tensors.items()
            if name.startswith(f"blk.{index}.")
        }
        is_local = shape.is_local(index)
        y = _attention(_rms(x, own["attn_norm"], shape), own, shape, is_local=is_local)
        x = x + (_rms(y, own["post_attention_norm"], shape) if is_gemma else y)
        y = _rms(x, own["ffn_norm"], shape)
        gate = y @ own["ffn_gate"].T
        gate = _gelu(gate) if is_gemma else gate / (1 + np.exp(-gate))
        y = (gate * (y @ own["ffn_up"].T)) @ own["ffn_down"].T
        x = x + (_rms(y, own["post_ffw_norm"], shape) if is_gemma else y)
    return _rms(x, tensors["output_norm"].astype(precision), shape)


def reference_ranks(
    tensors: Mapping[str, np.ndarray], tokens: Sequence[int], shape: Shape = TINY
) -> np.ndarray:
    """Return the probability of each label, float64[labels]."""
    scores = tensors["cls.output"].astype(np.float64) @ reference(tensors, tokens, shape)[-1]
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def _gelu(x: np.ndarray) -> np.ndarray:
    """Return the tanh approximation, which Gemma was trained with."""
    inner = x.dtype.type((2 / np.pi) ** 0.5) * (x + x.dtype.type(0.044715) * x * x * x)
    return x.dtype.type(0.5) * x * (1 + np.tanh(inner))


def _attention(
    x: np.ndarray, own: Mapping[str, np.ndarray], shape: Shape, *, is_local: bool = False
) -> np.ndarray:
    count = len(x)
    base = shape.rope_base_local if is_local else shape.rope_base

    def heads(name: str, number: int) -> np.ndarray:
        """float64[number, n_tokens, head]"""
        made = (x @ own[name].T + own.get(f"{name}.bias", 0)).reshape(count, number, shape.head)
        scale = own.get(f"{name}_norm")
        return (made if scale is None else _rms(made, scale, shape)).transpose(1, 0, 2)

    q = _turned(heads("attn_q", shape.heads), shape, base)
    k = _turned(heads("attn_k", shape.kv_heads), shape, base)
    v = heads("attn_v", shape.kv_heads)
    each = shape.heads // shape.kv_heads
    k, v = k.repeat(each, axis=0), v.repeat(each, axis=0)
    mixed = np.empty((count, shape.heads, shape.head), x.dtype)
    for start in range(0, count, ROWS):
        rows = slice(start, min(count, start + ROWS))
        scores = q[:, rows] @ k[:, : rows.stop].transpose(0, 2, 1)
        scores *= x.dtype.type(shape.head**-0.5)
        scores += np.triu(np.full(scores.shape[1:], -np.inf, x.dtype), 1 + start)
        if is_local:
            scores += np.tril(np.full(scores.shape[1:], -np.inf, x.dtype), start - shape.window)
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
        raised /= raised.sum(axis=-1, keepdims=True)
        mixed[rows] = (raised @ v[:, : rows.stop]).transpose(1, 0, 2)
    return mixed.reshape(count, -1) @ own["attn_output"].T


def _turned(x: np.ndarray, shape: Shape, base: float) -> np.ndarray:
    """Rotate each pair of numbers by its position, float64[heads, n_tokens, head].

    A pair is (i, i + head / 2), or (2i, 2i + 1) in Llama's files.
    """
    half = shape.head // 2
    angles = np.outer(np.arange(x.shape[1]), base ** (-np.arange(half) / half))
    is_llama = shape.architecture == "llama"
    ones, twos = (
        (slice(0, None, 2), slice(1, None, 2)) if is_llama else (slice(half), slice(half, None))
    )
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    turned = np.empty_like(x)
    turned[..., ones] = x[..., ones] * cos - x[..., twos] * sin
    turned[..., twos] = x[..., twos] * cos + x[..., ones] * sin
    return turned


def _rms(x: np.ndarray, scale: np.ndarray, shape: Shape) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + shape.eps) * scale


def add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Write a value by its kind."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))
