"""ReferenceTokenizer: the reference's tokenizer, rebuilt from the vocabulary inside a GGUF file.

Owns the reading of a file's vocabulary, flags and special tokens. For a kind of tokenizer that
cannot be rebuilt exactly the answer is None, and the caller falls back on another `Tokenizer`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from appliance.core.errors import LoadFailed
from appliance.engine.tokenizer import UNKNOWN_PIECE, WordPieceFlags, WordPieceTokenizer

_GGML = "tokenizer.ggml."
_OWN = "gigarouter.tokenizer."
_WORD_START = "\u2581"


class TokenType(IntEnum):
    """The types of vocabulary entries in a GGUF file."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids that frame a sequence; each is within the vocabulary."""

    cls: int
    """Comes before the first text."""
    sep: int
    """Comes after every text."""
    unk: int | None
    """Takes the place of a word that has no pieces; None if the vocabulary needs none."""


def special_tokens(metadata: Mapping[str, Any]) -> SpecialTokens:
    """Return the ids of the special tokens that a GGUF file names.

    `metadata` maps GGUF keys to Python values.

    Raises:
        LoadFailed: There is no vocabulary, no id for `cls` or `sep`, or one outside of it.
    """
    tokens_count = len(_tokens(metadata))
    # Older files name only the first and last token of a sequence. "seperator" is GGUF's spelling.
    cls = _token_id(metadata, ("cls_token_id", "bos_token_id"), tokens_count)
    sep = _token_id(metadata, ("seperator_token_id", "eos_token_id"), tokens_count)
    unk = _token_id(metadata, ("unknown_token_id",), tokens_count)
    if cls is None or sep is None:
        missing = "cls_token_id" if cls is None else "seperator_token_id"
        raise LoadFailed(f"the file does not name {_GGML}{missing}")
    return SpecialTokens(cls=cls, sep=sep, unk=unk)


def reference_tokenizer(metadata: Mapping[str, Any]) -> WordPieceTokenizer | None:
    """Return a tokenizer whose ids are the reference's, or None if it cannot be rebuilt exactly.

    `metadata` maps GGUF keys to Python values. Flags that the file lacks are those of uncased
    BERT: lower case, accents stripped, ideographs set apart, 100 characters in a word.

    Raises:
        LoadFailed: The vocabulary, a special token's id or a flag is damaged.
    """
    if metadata.get(f"{_GGML}model") != "bert":
        return None
    unk = special_tokens(metadata).unk
    vocabulary = _wordpiece_vocabulary(metadata)
    if unk is None or vocabulary is None:
        return None
    known = set(vocabulary.values()) - {unk}
    specials = {token: name for token, name in enumerate(_tokens(metadata)) if token not in known}
    vocabulary[UNKNOWN_PIECE] = unk
    return WordPieceTokenizer(vocabulary, _wordpiece_flags(metadata), specials)


def _wordpiece_vocabulary(metadata: Mapping[str, Any]) -> dict[str, int] | None:
    # GGUF spells the piece "##x" as "x", and "x" with a mark in front. Control tokens are left
    # out, so that no text can reach them. None: the reference's pieces cannot be known exactly.
    tokens = _tokens(metadata)
    types = metadata.get(f"{_GGML}token_type")
    if types is None:
        return None
    if not isinstance(types, list | tuple) or len(types) != len(tokens):
        raise LoadFailed(f"{_GGML}token_type does not give a type to each of {len(tokens)} tokens")
    pieces: dict[str, int] = {}
    for token_id, (token, token_type) in enumerate(zip(tokens, types, strict=True)):
        if token_type in (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED):
            continue
        if token_type != TokenType.NORMAL:
            # The reference finds added tokens before it splits words, by rules that are not in
            # the file.
            return None
        piece = token[1:] if token.startswith(_WORD_START) else f"##{token}"
        if piece in pieces:
            return None
        pieces[piece] = token_id
    return pieces


def _wordpiece_flags(metadata: Mapping[str, Any]) -> WordPieceFlags:
    # Our own converter writes all flags but leaves strip_accents out to mean None, so llama.cpp's
    # flags count only in files that have none of ours.
    own = any(key.startswith(_OWN) for key in metadata)
    casing = _OWN if own else f"{_GGML}normalizer."
    max_word_chars = metadata.get(f"{_OWN}max_word_chars", 100)
    if type(max_word_chars) is not int or max_word_chars < 1:
        raise LoadFailed(f"{_OWN}max_word_chars is {max_word_chars!r}, not a positive integer")
    return WordPieceFlags(
        lowercase=_flag(metadata, f"{casing}lowercase") is not False,
        strip_accents=_flag(metadata, f"{casing}strip_accents"),
        clean_text=_flag(metadata, f"{_OWN}clean_text") is not False,
        chinese_chars=_flag(metadata, f"{_OWN}chinese_chars") is not False,
        max_word_chars=max_word_chars,
    )


def _flag(metadata: Mapping[str, Any], key: str) -> bool | None:
    value = metadata.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise LoadFailed(f"{key} is {value!r}, neither true nor false")


def _tokens(metadata: Mapping[str, Any]) -> Sequence[str]:
    tokens = metadata.get(f"{_GGML}tokens")
    if isinstance(tokens, list | tuple) and tokens and all(isinstance(t, str) for t in tokens):
        return tokens
    raise LoadFailed(f"the file has no vocabulary ({_GGML}tokens)")


def _token_id(metadata: Mapping[str, Any], names: Sequence[str], tokens_count: int) -> int | None:
    for name in names:
        value = metadata.get(f"{_GGML}{name}")
        if value is None:
            continue
        if type(value) is not int or not 0 <= value < tokens_count:
            raise LoadFailed(f"{_GGML}{name} is {value!r}, outside 0..{tokens_count - 1}")
        return value
    return None
