"""Tokenizer: text to the token ids that the model was trained with.

Owns the rebuilding of the reference's own tokenizer (Hugging Face `tokenizers`) from the vocabulary
and flags inside a GGUF file, and the reading of the special tokens' ids. llama.cpp's own WordPiece
differs from the reference: it splits words over 100 characters that the reference calls unknown,
and keeps Devanagari marks that the reference strips. It adds no special tokens, truncates nothing,
and knows no other tokenizer: for a kind that cannot be rebuilt exactly the answer is None, and the
caller falls back on another `Tokenizer`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from appliance.core.errors import LoadFailed
from appliance.settings import keep_tokenizers_single_threaded

SEGMENT_CHARS = 64_000
"""Characters given to the library at once: few enough that its working memory (450 bytes for each
character, 1.7 GB for 4 MB of punctuation) stays near 30 MB, enough that the GIL changes hands
rarely."""

SEGMENT_CHARS_MIN = 8_000
TOKENS_ENOUGH = 100_000
"""A text's later segments are left out once it has this many tokens: far more than any model takes
of one text, and the library needs up to 10 microseconds for a character of a hostile one."""

_GGML = "tokenizer.ggml."
_OWN = "gigarouter.tokenizer."
_WORD_START = "\u2581"
_UNKNOWN_PIECE = " unknown "  # with spaces, so that no word of any text can spell it

# Before these characters a word always ends and no Unicode normalization reaches across, so a
# text cut there has the tokens of the whole. \v, \f and the like are not among them: the
# reference drops them and joins what they divide.
_ASCII_BOUNDARY = r" \t\n\r!-/:-@\[-`{-~"
_IDEOGRAPHS = r"\u3400-\u4dbf\u4e00-\u9fff"


class TokenType(IntEnum):
    """The types of vocabulary entries in a GGUF file."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Tokenizer(Protocol):
    """Text to token ids without special tokens."""

    def encode(
        self, texts: Sequence[str], tokens_enough: int = TOKENS_ENOUGH
    ) -> list[npt.NDArray[np.int32]]:
        """Return the ids of each text, as int32[n_tokens], in the order of `texts`.

        No special token is added and none is recognised in a text. A text may be left off
        somewhere beyond its first `tokens_enough` tokens, never before. May be called from several
        threads at once.
        """


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids that frame a sequence; each is within the vocabulary."""

    cls: int
    """Stands before the first text."""
    sep: int
    """Stands after every text."""
    unk: int | None
    """Stands for a word that has no pieces; None if the vocabulary needs none."""


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


def reference_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer | None:
    """Return a tokenizer whose ids are the reference's, or None if it cannot be rebuilt exactly.

    `metadata` maps GGUF keys to Python values. Flags that the file lacks are those of uncased
    BERT: lower case, accents stripped, ideographs set apart, 100 characters in a word.

    Turns the library's own threads off for this process, unless `TOKENIZERS_PARALLELISM` is set.

    Raises:
        LoadFailed: The vocabulary, a special token's id or a flag is damaged.
    """
    if metadata.get(f"{_GGML}model") != "bert":
        return None
    unk = special_tokens(metadata).unk
    vocabulary = _wordpiece_vocabulary(metadata)
    if unk is None or vocabulary is None:
        return None
    vocabulary[_UNKNOWN_PIECE] = unk
    _keep_to_the_calling_thread()
    return WordPieceTokenizer(vocabulary, _wordpiece_flags(metadata))


@dataclass(frozen=True, slots=True)
class WordPieceFlags:
    """How a text becomes words before its pieces are looked up."""

    lowercase: bool
    strip_accents: bool | None
    """None follows `lowercase`."""
    clean_text: bool
    """Control characters and U+FFFD are dropped."""
    chinese_chars: bool
    """Every ideograph is a word of its own."""
    max_word_chars: int
    """A longer word is unknown as a whole."""


class WordPieceTokenizer:
    """The reference's BERT tokenizer; immutable, and safe to share between threads."""

    def __init__(self, vocabulary: Mapping[str, int], flags: WordPieceFlags) -> None:
        self._flags = flags
        boundary = _ASCII_BOUNDARY + (_IDEOGRAPHS if flags.chinese_chars else "")
        self._boundary = re.compile(f"[{boundary}]")
        # No special token is registered with the library: one that is would be found in the texts
        # of users, who could then forge the frame around their own document.
        self._tokenizer = tokenizers.Tokenizer(
            models.WordPiece(
                vocab=dict(vocabulary),
                unk_token=_UNKNOWN_PIECE,
                max_input_chars_per_word=flags.max_word_chars,
                continuing_subword_prefix="##",
            )
        )
        self._tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=flags.clean_text,
            handle_chinese_chars=flags.chinese_chars,
            strip_accents=flags.strip_accents,
            lowercase=flags.lowercase,
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def __repr__(self) -> str:
        return f"<WordPieceTokenizer [{self._tokenizer.get_vocab_size()} pieces | {self._flags}]>"

    def encode(
        self, texts: Sequence[str], tokens_enough: int = TOKENS_ENOUGH
    ) -> list[npt.NDArray[np.int32]]:
        """Return the ids of each text, as int32[n_tokens], in the order of `texts`.

        The GIL is free during the work. Time and memory grow linearly with the characters.
        """
        parts: list[list[npt.NDArray[np.int32]]] = [[] for _ in texts]
        counts = [0] * len(texts)
        for group in self._groups(texts, counts, tokens_enough):
            # Unlike `encode`, the batch call lets go of the GIL; "fast" leaves out the offsets.
            encodings = self._tokenizer.encode_batch_fast(
                [segment for _, segment in group], add_special_tokens=False
            )
            for (index, _), encoding in zip(group, encodings, strict=True):
                parts[index].append(np.array(encoding.ids, dtype=np.int32))
                counts[index] += len(encoding.ids)
        return [part[0] if len(part) == 1 else np.concatenate(part) for part in parts]

    def _groups(
        self, texts: Sequence[str], counts: Sequence[int], tokens_enough: int
    ) -> Iterator[list[tuple[int, str]]]:
        # `counts` grows while this generator is consumed: that is how it learns to stop early.
        # Small segments where few tokens are wanted: a hostile character costs 10 microseconds.
        segment_chars = min(SEGMENT_CHARS, max(SEGMENT_CHARS_MIN, 16 * tokens_enough))
        group: list[tuple[int, str]] = []
        room = segment_chars
        for index, text in enumerate(texts):
            for segment in self._segments(_without_lone_surrogates(text), segment_chars):
                if counts[index] > tokens_enough:
                    break
                group.append((index, segment))
                room -= len(segment)
                if room <= 0:
                    yield group
                    group, room = [], segment_chars
        if group:
            yield group

    def _segments(self, text: str, segment_chars: int) -> Iterator[str]:
        start = 0
        while len(text) - start > segment_chars:
            boundary = self._boundary.search(text, start + segment_chars)
            if boundary is None:
                break
            yield text[start : boundary.start()]
            start = boundary.start()
        yield text[start:]


def _without_lone_surrogates(text: str) -> str:
    # The API refuses such texts; here they only must not fail the texts beside them.
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _keep_to_the_calling_thread() -> None:
    # The library would spread a batch over all cores, against the engine's own threads, whose
    # barriers spin while one of them waits for a core. Callers choose the concurrency by calling
    # from several threads. There is no other switch than the environment, read at each call.
    keep_tokenizers_single_threaded()


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
