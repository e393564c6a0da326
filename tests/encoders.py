"""Tiny cross-encoders of XLM-RoBERTa's and ModernBERT's kind, and what they must answer.

Owns weights drawn from a seed, vocabularies of single letters, and forward passes in float64 that
are written from the architectures' descriptions (arXiv 1911.02116, 2412.13663), with no code of the
library under test.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.decoders import add_key

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPACE = "\u2581"
UNIGRAM = (
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    SPACE,
    *LETTERS,
    *(SPACE + letter for letter in LETTERS),
)
"""Tokens of an XLM-R-like vocabulary by id: letters, and letters that begin a word."""
XLMR_TOKENIZER: Mapping[str, Any] = {
    "model": "t5",
    "tokens": UNIGRAM,
    "scores": [0.0] * 4 + [-5.0] + [-3.0] * len(LETTERS) + [-4.0] * len(LETTERS),
    "token_type": [3, 3, 3, 2] + [1] * (len(UNIGRAM) - 4),
    "add_space_prefix": True,
    "remove_extra_whitespaces": True,
    "bos_token_id": 0,
    "padding_token_id": 1,
    "eos_token_id": 2,
    "seperator_token_id": 2,
    "unknown_token_id": 3,
    "token_type_count": 1,
}
_PLAIN = (*range(33, 127), *range(161, 173), *range(174, 256))
_HIDDEN = [byte for byte in range(256) if byte not in _PLAIN]
BYTES = [chr(256 + _HIDDEN.index(b)) if b in _HIDDEN else chr(b) for b in range(256)]
BPE = (*BYTES, "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
MODERN_TOKENIZER: Mapping[str, Any] = {
    "model": "gpt2",
    "pre": "modern-bert",
    "tokens": BPE,
    "token_type": [1] * 256 + [3] * 5,
    "merges": ["t h"],  # the library wants some; "th" is no token, so that it never applies
    "bos_token_id": 257,
    "eos_token_id": 258,
    "unknown_token_id": 256,
    "seperator_token_id": 258,
    "padding_token_id": 259,
    "cls_token_id": 257,
    "mask_token_id": 260,
    "add_bos_token": True,
    "add_eos_token": True,
}


@dataclass(frozen=True)
class Shape:
    """How large a cross-encoder is."""

    vocabulary: int
    width: int = 64
    heads: int = 2
    inner: int = 96
    blocks: int = 4
    context: int = 128
    eps: float = 1e-5
    window: int = 16
    """ModernBERT's local attention: this many tokens around each, in all blocks but every third."""
    global_every: int = 3
    rope_global: float = 160_000.0
    rope_local: float = 10_000.0


XLMR, MODERN = Shape(len(UNIGRAM)), Shape(len(BPE))


class _Draw:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        drawn = self._random.standard_normal((rows, columns), dtype=np.float32)
        return drawn * np.float32(columns**-0.5)

    def norm(self, size: int) -> np.ndarray:
        return 1 + 0.1 * self._random.standard_normal(size, dtype=np.float32)

    def bias(self, size: int) -> np.ndarray:
        return np.float32(0.1) * self._random.standard_normal(size, dtype=np.float32)


def xlmr_weights(shape: Shape = XLMR, *, seed: int) -> dict[str, np.ndarray]:
    """Return tensors by their GGUF names; the classifier is dense, tanh, then one output."""
    draw, width = _Draw(seed), shape.width

    def linear(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": draw.matrix(rows, columns), f"{name}.bias": draw.bias(rows)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": draw.norm(width), f"{name}.bias": draw.bias(width)}

    found = {
        "token_embd.weight": draw.matrix(shape.vocabulary, width) * 4,
        "position_embd.weight": draw.matrix(shape.context, width),
        "token_types.weight": draw.matrix(1, width)[0],
        **norm("token_embd_norm"),
    }
    for index in range(shape.blocks):
        block = f"blk.{index}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found |= linear(block + part, width, width)
        found |= norm(f"{block}attn_output_norm")
        found |= linear(f"{block}ffn_up", shape.inner, width)
        found |= linear(f"{block}ffn_down", width, shape.inner)
        found |= norm(f"{block}layer_output_norm")
    return found | linear("cls", width, width) | linear("cls.output", 1, width)


def modern_weights(shape: Shape = MODERN, *, seed: int) -> dict[str, np.ndarray]:
    """Return tensors by their GGUF names; the classifier is dense, GELU, norm, then one output."""
    draw, width = _Draw(seed), shape.width
    found = {
        "token_embd.weight": draw.matrix(shape.vocabulary, width) * 4,
        "token_embd_norm.weight": draw.norm(width),
        "output_norm.weight": draw.norm(width),
    }
    for index in range(shape.blocks):
        block = f"blk.{index}."
        if index:
            found[f"{block}attn_norm.weight"] = draw.norm(width)
        found[f"{block}attn_qkv.weight"] = draw.matrix(3 * width, width)
        found[f"{block}attn_output.weight"] = draw.matrix(width, width)
        found[f"{block}ffn_norm.weight"] = draw.norm(width)
        found[f"{block}ffn_up.weight"] = draw.matrix(2 * shape.inner, width)
        found[f"{block}ffn_down.weight"] = draw.matrix(width, shape.inner)
    return found | {
        "cls.weight": draw.matrix(width, width),
        "cls.norm.weight": draw.norm(width),
        "cls.output.weight": draw.matrix(1, width),
        "cls.output.bias": draw.bias(1),
    }


def widened(tokenizer: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """Return a tokenizer with tokens that no text has, up to a number of entries."""
    more = vocabulary - len(tokenizer["tokens"])
    found = dict(tokenizer)
    found["tokens"] = [*tokenizer["tokens"], *(f"\uee00{number}" for number in range(more))]
    for key, filler in (("scores", -20.0), ("token_type", 1)):
        if key in tokenizer:
            found[key] = [*tokenizer[key], *[filler] * more]
    return found


def write_xlmr(path: Path, tensors: Mapping[str, np.ndarray], shape: Shape = XLMR) -> Path:
    """Write an XLM-R-like cross-encoder, or embedder, as llama.cpp's converter does."""
    writer = _begun(path, "bert", shape)
    writer.add_bool("bert.attention.causal", val=False)
    writer.add_layer_norm_eps(shape.eps)
    if "cls.weight" not in tensors:
        writer.add_pooling_type(gguf.PoolingType.CLS)
    return _ended(writer, path, tensors, widened(XLMR_TOKENIZER, shape.vocabulary))


def write_modern(path: Path, tensors: Mapping[str, np.ndarray], shape: Shape = MODERN) -> Path:
    """Write a ModernBERT-like cross-encoder as llama.cpp's converter does."""
    writer = _begun(path, "modern-bert", shape)
    writer.add_bool("modern-bert.attention.causal", val=False)
    writer.add_layer_norm_eps(shape.eps)
    writer.add_sliding_window(shape.window)
    writer.add_uint32("modern-bert.attention.sliding_window_pattern", shape.global_every)
    writer.add_rope_freq_base(shape.rope_global)
    writer.add_float32("modern-bert.rope.freq_base_swa", shape.rope_local)
    writer.add_uint32("modern-bert.rope.dimension_count", shape.width // shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    if "cls.weight" not in tensors:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    return _ended(writer, path, tensors, widened(MODERN_TOKENIZER, shape.vocabulary))


def write_wide_bert(path: Path, *, tokens: int, context: int, seed: int) -> Path:
    """Write an embedder of BERT's kind that is small but for its vocabulary and its context."""
    shape = Shape(tokens, width=32, inner=32, blocks=1, context=context)
    weights = xlmr_weights(shape, seed=seed)
    weights = {name: array for name, array in weights.items() if not name.startswith("cls")}
    weights["token_types.weight"] = np.stack([weights["token_types.weight"]] * 2)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(SPACE + c for c in LETTERS), *LETTERS]
    writer = _begun(path, "bert", shape)
    writer.add_bool("bert.attention.causal", val=False)
    writer.add_layer_norm_eps(shape.eps)
    writer.add_uint32("bert.pooling_type", 1)
    tokenizer = {
        "model": "bert",
        "tokens": [*pieces, *(f"{SPACE}n{number}" for number in range(tokens - len(pieces)))],
        "token_type": [3] * 5 + [1] * (tokens - 5),
        "cls_token_id": 2,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "seperator_token_id": 3,
        "unknown_token_id": 1,
        "padding_token_id": 0,
        "mask_token_id": 4,
        "token_type_count": 2,
    }
    return _ended(writer, path, weights, tokenizer)


def _begun(path: Path, architecture: str, shape: Shape) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    return writer


def _ended(writer, path: Path, tensors, tokenizer: Mapping[str, Any]) -> Path:
    for key, value in tokenizer.items():
        add_key(writer, f"tokenizer.ggml.{key}", value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def xlmr_logit(tensors, tokens: Sequence[int], shape: Shape = XLMR) -> float:
    """Return the classifier's number for one sequence."""
    first = xlmr_states(tensors, tokens, shape)[0]
    dense = np.tanh(first @ tensors["cls.weight"].T + tensors["cls.bias"])
    return float((dense @ tensors["cls.output.weight"].T + tensors["cls.output.bias"])[0])


def xlmr_states(
    tensors, tokens: Sequence[int], shape: Shape = XLMR, *, precision: type = np.float64
) -> np.ndarray:
    """Return the last hidden state of every token, [n_tokens, width]."""
    own = _Named(tensors, precision)

    def linear(x, name):
        return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    x = own["token_embd.weight"][list(tokens)].astype(precision)
    x = x + own["position_embd.weight"][: len(tokens)]
    x = _norm(x + own["token_types.weight"], own, "token_embd_norm", shape)
    for index in range(shape.blocks):
        block = f"blk.{index}."
        q, k, v = (_heads(linear(x, block + f"attn_{part}"), shape) for part in "qkv")
        y = linear(_attended(q, k, v, lambda _: 0), f"{block}attn_output")
        x = _norm(x + y, own, f"{block}attn_output_norm", shape)
        y = linear(_gelu(linear(x, f"{block}ffn_up")), f"{block}ffn_down")
        x = _norm(x + y, own, f"{block}layer_output_norm", shape)
    return x


def modern_logit(tensors, tokens: Sequence[int], shape: Shape = MODERN) -> float:
    """Return the classifier's number for one sequence; its mean is what is classified."""
    own = {name: array.astype(np.float64) for name, array in tensors.items()}
    pooled = modern_states(tensors, tokens, shape).mean(axis=0)
    y = _norm(_gelu(pooled @ own["cls.weight"].T), own, "cls.norm", shape)
    return float((y @ own["cls.output.weight"].T + own["cls.output.bias"])[0])


def modern_states(
    tensors, tokens: Sequence[int], shape: Shape = MODERN, *, precision: type = np.float64
) -> np.ndarray:
    """Return the last hidden state of every token, [n_tokens, width]."""
    own = _Named(tensors, precision)
    x = own["token_embd.weight"][list(tokens)].astype(precision)
    x = _norm(x, own, "token_embd_norm", shape)
    places = np.arange(len(tokens))

    def near(rows: slice) -> np.ndarray:
        far = np.abs(places[rows, None] - places[None, :]) > shape.window // 2
        return np.where(far, -np.inf, 0.0).astype(precision)

    for index in range(shape.blocks):
        block = f"blk.{index}."
        is_global = index % shape.global_every == 0
        y = _norm(x, own, f"{block}attn_norm", shape) if index else x
        parts = np.split(y @ own[f"{block}attn_qkv.weight"].T, 3, axis=-1)
        q, k, v = (_heads(part, shape) for part in parts)
        base = shape.rope_global if is_global else shape.rope_local
        mask = (lambda _: 0) if is_global else near
        y = _attended(_turned(q, base), _turned(k, base), v, mask)
        x = x + y @ own[f"{block}attn_output.weight"].T
        y = _norm(x, own, f"{block}ffn_norm", shape)
        value, gate = np.split(y @ own[f"{block}ffn_up.weight"].T, 2, axis=-1)
        x = x + (_gelu(value) * gate) @ own[f"{block}ffn_down.weight"].T
    return _norm(x, own, "output_norm", shape)


class _Named:
    """Tensors by name, converted when they are used: all of them at once may not fit."""

    def __init__(self, tensors: Mapping[str, np.ndarray], precision: type) -> None:
        self._tensors, self._precision = tensors, precision

    def __getitem__(self, name: str) -> np.ndarray:
        found = self._tensors[name]
        return found if name == "token_embd.weight" else found.astype(self._precision)

    def get(self, name: str, default: int) -> Any:
        return self[name] if name in self._tensors else default


ROWS = 512
"""Queries whose attention is in memory at once."""


def _norm(x, own, name: str, shape: Shape):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + shape.eps)
    return scaled * own[f"{name}.weight"] + own.get(f"{name}.bias", 0)


def _heads(x, shape: Shape):
    return x.reshape(len(x), shape.heads, -1).transpose(1, 0, 2)


def _attended(q, k, v, mask):
    """Return the attention of every token; `mask` is a function of a slice of queries."""
    mixed = np.empty((q.shape[1], q.shape[0], v.shape[2]), q.dtype)
    for start in range(0, q.shape[1], ROWS):
        rows = slice(start, start + ROWS)
        scores = q[:, rows] @ k.transpose(0, 2, 1) * q.dtype.type(q.shape[-1] ** -0.5) + mask(rows)
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed[rows] = (raised / raised.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2)
    return mixed.reshape(q.shape[1], -1)


def _turned(x, base: float):
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(x.shape[1]), base ** (-np.arange(half) / half))
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    one, two = x[..., :half], x[..., half:]
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)


def _gelu(x):
    scaled = x / x.dtype.type(math.sqrt(2))
    erf = np.vectorize(math.erf) if x.dtype == np.float64 else _quick_erf
    return x.dtype.type(0.5) * x * (1 + erf(scaled))


def _quick_erf(x):
    """Return erf(x) within 1.5e-7: Abramowitz and Stegun, 7.1.26."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = np.zeros_like(t)
    for term in terms:
        total = (total + np.float32(term)) * t
    return np.sign(x) * (1 - total * np.exp(-x * x))
