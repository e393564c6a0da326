"""Tokenizer: text to the token ids that the model was trained with.

Owns what every tokenizer promises, and BERT's own, computed by the reference's library (Hugging
Face `tokenizers`). llama.cpp's own WordPiece differs from it: it splits words over 100 characters
that the reference calls unknown, and keeps Devanagari marks that the reference strips. No special
tokens are added, and nothing is truncated.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from appliance.engine.vocabulary import Vocabulary, WordPieceVocabulary
from appliance.settings import keep_tokenizers_single_threaded

SEGMENT_CHARS = 64_000
"""Characters given to the library at once: few enough that its working memory (450 bytes for each
character, 1.7 GB for 4 MB of punctuation) stays near 30 MB, enough that the GIL changes hands
rarely."""

SEGMENT_CHARS_MIN = 8_000
TOKENS_ENOUGH = 100_000
"""A text's later segments are left out once it has this many tokens: far more than any model takes
of one text, and the library needs up to 10 microseconds for a character of a hostile one."""

UNKNOWN_PIECE = " unknown "
"""With spaces, so that no word of any text can spell it."""

# Before these characters a word always ends and no Unicode normalization reaches across, so a
# text cut there has the tokens of the whole. \v, \f and the like are not among them: the
# reference drops them and joins what they divide.
_ASCII_BOUNDARY = r" \t\n\r!-/:-@\[-`{-~"
_IDEOGRAPHS = r"\u3400-\u4dbf\u4e00-\u9fff"


class Tokenizer(Protocol):
    """Text to token ids without special tokens."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The way back from ids to text."""
        ...

    def spans(self, text: str, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int64] | None:
        """Return where in a text each of its tokens begins and ends, int64[n_tokens, 2].

        In characters; `tokens` are those that `encode` gave for the text, all of them. None: they
        cannot be found in it.
        """
        ...

    def encode(
        self, texts: Sequence[str], tokens_enough: int = TOKENS_ENOUGH
    ) -> list[npt.NDArray[np.int32]]:
        """Return the ids of each text, as int32[n_tokens], in the order of `texts`.

        No special token is added and none is recognised in a text. A text may be left off
        somewhere beyond its first `tokens_enough` tokens, never before. May be called from several
        threads at once.
        """


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

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        flags: WordPieceFlags,
        specials: Mapping[int, str] | None = None,
    ) -> None:
        """Build it; `vocabulary` has an id for every piece, `UNKNOWN_PIECE` among them.

        `specials` names the ids that no text has, and the unknown one.

        Turns the library's own threads off for this process, unless `TOKENIZERS_PARALLELISM` is
        set: it would spread each batch over all cores, against the engine's threads, which wait for
        each other. Callers choose the concurrency by calling from several threads.
        """
        keep_tokenizers_single_threaded()
        self._flags = flags
        self.vocabulary: Vocabulary = WordPieceVocabulary(vocabulary, specials or {})
        boundary = _ASCII_BOUNDARY + (_IDEOGRAPHS if flags.chinese_chars else "")
        self._boundary = re.compile(f"[{boundary}]")
        # No special token is registered with the library: it would be recognised in users' texts,
        # and a document could then forge the frame around itself.
        self._tokenizer = tokenizers.Tokenizer(
            models.WordPiece(
                vocab=dict(vocabulary),
                unk_token=UNKNOWN_PIECE,
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

    def spans(self, text: str, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int64] | None:
        """Return where each token begins and ends, as the reference counts it."""
        parts = []
        start = 0
        for segment in self._segments(_without_lone_surrogates(text), SEGMENT_CHARS):
            (encoding,) = self._tokenizer.encode_batch([segment], add_special_tokens=False)
            parts.append(np.array(encoding.offsets, np.int64).reshape(-1, 2) + start)
            start += len(segment)
        found = np.concatenate(parts)
        return found if len(found) == len(tokens) else None

    def _groups(
        self, texts: Sequence[str], counts: Sequence[int], tokens_enough: int
    ) -> Iterator[list[tuple[int, str]]]:
        # `counts` grows while this generator is consumed; that is how a text is left off early.
        # Segments are small where few tokens are needed: a hostile character costs 10 microseconds.
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
    # The API refuses such texts. Here they must only not fail the other texts of a call.
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def slices(texts: Sequence[str], chars_max: int) -> Iterator[list[str]]:
    """Yield the texts in order, as many at a time as have so many characters; one at least."""
    part: list[str] = []
    chars = 0
    for text in texts:
        if part and chars + len(text) > chars_max:
            yield part
            part, chars = [], 0
        part.append(text)
        chars += len(text)
    if part:
        yield part
