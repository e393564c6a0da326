"""Tiny models: random BERT folders and GGUF files that take milliseconds to make.

Owns a small vocabulary and weights drawn from a seed. It proves nothing about meaning: their
vectors are noise, but the same noise every time.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from appliance.catalog.convert import convert_folder

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_WORDS = ("the", "cat", "sat", "on", "mat", "reset", "password", "##ing", "##ed", ".", ",", "?")
VOCABULARY = (*SPECIALS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS)
"""Tokens by id; every word of ASCII letters and digits can be spelt with them."""

HIDDEN, INNER, HEADS, BLOCKS, CONTEXT = 32, 64, 4, 2, 64


def write_tiny_bert_folder(
    folder: Path,
    *,
    seed: int,
    labels: int | None = None,
    dtype: str = "F32",
    config: Mapping[str, object] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    tokenizer: bool = True,
) -> dict[str, np.ndarray]:
    """Write a model folder and return its tensors as float32.

    Without `labels` it is an embedder, else a cross-encoder with that many outputs. `config` and
    `tensors` replace entries; None removes one. `tokenizer` chooses tokenizer.json over vocab.txt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**_config(labels), **(config or {})}
    settings = {key: value for key, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    if tokenizer:
        (folder / "tokenizer.json").write_text(json.dumps(tiny_tokenizer(), ensure_ascii=False))
    else:
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY))
    weights: dict[str, np.ndarray | None] = {**_weights(seed, labels), **(tensors or {})}
    present = {name: array for name, array in weights.items() if array is not None}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(present, dtype=dtype))
    return present


def write_tiny_gguf(path: Path, *, seed: int, labels: int | None = None) -> Path:
    """Write a tiny model as GGUF and return its path."""
    folder = path.parent / f"{path.stem}-folder"
    write_tiny_bert_folder(folder, seed=seed, labels=labels)
    convert_folder(folder, path, name=path.stem)
    return path


def tiny_tokenizer() -> dict[str, Any]:
    """Return tokenizer.json of the tiny vocabulary, to be changed by the caller at will."""
    template = [_special("[CLS]", 0), _sequence("A", 0), _special("[SEP]", 0)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for index, token in enumerate(SPECIALS)
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, _sequence("B", 1), _special("[SEP]", 1)],
            "special_tokens": {
                token: {"id": token, "ids": [VOCABULARY.index(token)], "tokens": [token]}
                for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: index for index, token in enumerate(VOCABULARY)},
        },
    }


def safetensors_bytes(tensors: Mapping[str, np.ndarray], *, dtype: str = "F32") -> bytes:
    """Return a safetensors file; float arrays are stored as `dtype`, int64 arrays as they are."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in tensors.items():
        kind = "I64" if array.dtype == np.int64 else dtype
        raw = _stored(array, kind)
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _stored(array: np.ndarray, kind: str) -> bytes:
    if kind == "BF16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}[kind]).tobytes()


def _special(token: str, segment: int) -> dict[str, object]:
    return {"SpecialToken": {"id": token, "type_id": segment}}


def _sequence(name: str, segment: int) -> dict[str, object]:
    return {"Sequence": {"id": name, "type_id": segment}}


def _config(labels: int | None) -> dict[str, object]:
    config: dict[str, object] = {
        "architectures": ["BertModel" if labels is None else "BertForSequenceClassification"],
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": CONTEXT,
        "model_type": "bert",
        "num_attention_heads": HEADS,
        "num_hidden_layers": BLOCKS,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": len(VOCABULARY),
    }
    if labels is not None:
        config["id2label"] = {str(index): f"label-{index}" for index in range(labels)}
    return config


def _weights(seed: int, labels: int | None) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    prefix = "" if labels is None else "bert."
    found: dict[str, np.ndarray] = {}

    def matrix(name: str, *shape: int) -> None:
        found[name] = (random.standard_normal(shape) * 0.1).astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(f"{name}.weight", rows, columns)
        matrix(f"{name}.bias", rows)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = (1 + random.standard_normal(HIDDEN) * 0.05).astype(np.float32)
        matrix(f"{name}.bias", HIDDEN)

    matrix(f"{prefix}embeddings.word_embeddings.weight", len(VOCABULARY), HIDDEN)
    matrix(f"{prefix}embeddings.position_embeddings.weight", CONTEXT, HIDDEN)
    matrix(f"{prefix}embeddings.token_type_embeddings.weight", 2, HIDDEN)
    norm(f"{prefix}embeddings.LayerNorm")
    for index in range(BLOCKS):
        block = f"{prefix}encoder.layer.{index}"
        for part in ("query", "key", "value"):
            linear(f"{block}.attention.self.{part}", HIDDEN, HIDDEN)
        linear(f"{block}.attention.output.dense", HIDDEN, HIDDEN)
        norm(f"{block}.attention.output.LayerNorm")
        linear(f"{block}.intermediate.dense", INNER, HIDDEN)
        linear(f"{block}.output.dense", HIDDEN, INNER)
        norm(f"{block}.output.LayerNorm")
    linear(f"{prefix}pooler.dense", HIDDEN, HIDDEN)
    if labels is not None:
        linear("classifier", labels, HIDDEN)
    # An integer buffer that old checkpoints carry and that must not be in the way.
    found[f"{prefix}embeddings.position_ids"] = np.arange(CONTEXT, dtype=np.int64)[None]
    return found
