"""Sequence: one tokenized input, as the engine computes it.

Owns the framing of texts by special tokens: `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]` (RoBERTa's
kind has two [SEP] in the middle); a decoder's texts may lack either end, and its pairs stand in a
template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np
import numpy.typing as npt

from appliance.sequences.truncation import pair_lengths, single, window_lengths

Tokens = npt.NDArray[np.int32]
"""int32[n_tokens]"""
Side = Literal["start", "end"]
"""Where a text that is too long is cut."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The ids that frame a sequence."""

    cls: int | None
    """Opens a text: BERT's [CLS], a decoder's BOS; None: nothing does."""
    sep: int | None
    """Closes a text: BERT's [SEP], a decoder's EOS; None: nothing does."""
    seps_between: int = 1
    """How often `sep` stands between the texts of a pair."""

    @property
    def pair_specials(self) -> int:
        """Count the special tokens of a pair."""
        return 2 + self.seps_between

    @property
    def specials(self) -> int:
        """Count the special tokens of a single text."""
        return (self.cls is not None) + (self.sep is not None)


@dataclass(frozen=True, slots=True)
class Template:
    """The tokens around a pair that is read as one text."""

    before: Tokens
    after: Tokens

    @property
    def specials(self) -> int:
        """Count its tokens."""
        return len(self.before) + len(self.after)


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One tokenized input, special tokens included, no longer than its model takes."""

    tokens: Tokens
    segment_b: int
    """Index at which the second text (token type 1) begins; `len(tokens)` when there is none."""
    truncated: bool
    parts: tuple[int, ...] = ()
    """The tokens of each of the parts it consists of, where each is to have a row of its own."""

    @property
    def rows(self) -> int:
        """Count the rows that are computed from it."""
        return len(self.parts) or 1

    def __len__(self) -> int:
        """Count tokens, special ones included: what is computed and billed."""
        return len(self.tokens)


def row_starts(sequences: Sequence[TokenSequence]) -> list[int]:
    """Return which row is the first of each sequence, and last of all how many rows there are."""
    return list(accumulate((sequence.rows for sequence in sequences), initial=0))


def frame_single(
    tokens: Tokens, frame: Frame, *, tokens_max: int, side: Side = "end", words: int = 0
) -> TokenSequence:
    """Return `[CLS] tokens [SEP]`, cut at one side of the text so that both special tokens stay.

    The first `words` tokens are the model's own words for a text: cut at its start, it loses what
    comes after them.

    A text that is cut at its start must be given whole: a tokenizer that was told how many tokens
    are enough leaves its end off.
    """
    kept = single(len(tokens), tokens_max - frame.specials)
    framed = np.empty(kept + frame.specials, np.int32)
    start = 0
    if frame.cls is not None:
        framed[0] = frame.cls
        start = 1
    first = len(tokens) - kept if side == "start" else 0
    framed[start : start + kept] = tokens[first : first + kept]
    if first:
        opening = min(words, kept)
        framed[start : start + opening] = tokens[:opening]
    if frame.sep is not None:
        framed[-1] = frame.sep
    return TokenSequence(framed, len(framed), truncated=kept < len(tokens))


def frame_parts(texts: Sequence[Tokens], frame: Frame) -> TokenSequence:
    """Return texts as one sequence, `[CLS] texts [SEP]`, each of them one of its parts.

    The frame's tokens count with the first and the last text: one text alone is what it would be
    anyway.
    """
    joined = np.concatenate(texts)
    whole = frame_single(joined, frame, tokens_max=len(joined) + frame.specials)
    lengths = [len(text) for text in texts]
    lengths[0] += frame.cls is not None
    lengths[-1] += frame.sep is not None
    return replace(whole, parts=tuple(lengths))


def frame_windows(
    tokens: Tokens, frame: Frame, *, tokens_max: int, words: int = 0
) -> list[TokenSequence]:
    """Return a text as framed sequences that each fit, one after the other, none of them cut.

    The first `words` tokens are the model's own words for a text: they open each window.

    They are as few as possible and equally long, but for one token: a last window of three tokens
    would say little, and in a mean weigh more than its share of context. A text without tokens is
    one sequence. The text must be given whole.
    """
    opening, text = tokens[:words], tokens[words:]
    lengths = window_lengths(len(text), tokens_max - frame.specials - len(opening))
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return [
        frame_single(np.concatenate([opening, text[start:end]]), frame, tokens_max=tokens_max)
        for start, end in zip(starts, ends, strict=True)
    ]


def frame_pair(first: Tokens, second: Tokens, frame: Frame, *, tokens_max: int) -> TokenSequence:
    """Return `[CLS] first [SEP] second [SEP]`, the longer text cut first; the frame is whole."""
    assert frame.cls is not None
    assert frame.sep is not None
    room = tokens_max - frame.pair_specials
    kept_first, kept_second = pair_lengths(len(first), len(second), room)
    framed = np.empty(kept_first + kept_second + frame.pair_specials, np.int32)
    middle = kept_first + 1
    second_at = middle + frame.seps_between
    framed[0] = frame.cls
    framed[1:middle] = first[:kept_first]
    framed[middle:second_at] = frame.sep
    framed[second_at:-1] = second[:kept_second]
    framed[-1] = frame.sep
    truncated = kept_first < len(first) or kept_second < len(second)
    return TokenSequence(framed, second_at, truncated=truncated)


def fill_template(tokens: Tokens, template: Template, *, tokens_max: int) -> TokenSequence:
    """Return a pair's text in its template, cut at its end; the template is whole."""
    kept = single(len(tokens), tokens_max - template.specials)
    filled = np.concatenate([template.before, tokens[:kept], template.after]).astype(np.int32)
    return TokenSequence(filled, len(filled), truncated=kept < len(tokens))
