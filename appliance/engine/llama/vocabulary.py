"""Vocabulary: llama.cpp's own, asked entry by entry.

The library throws a C++ exception through its C interface, which ends the process, when it is
asked for an id outside of the vocabulary, or for anything of a file without one: both are checked
before each call. `llama_detokenize` is not used: for some vocabularies it removes spaces before
punctuation, and of what a text begins with it keeps a space that the tokenizer had put there.
"""

import ctypes
from collections.abc import Callable

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.core.errors import InferenceFailed
from appliance.engine.vocabulary import Ids

NO_VOCABULARY = 0
"""LLAMA_VOCAB_TYPE_NONE"""
HIDDEN = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNUSED
PIECE_BYTES = 128
"""Room for an entry at first; a longer one is asked for again."""
UTF8_BYTES_MAX = 4
"""Of a character."""
_CONTINUATION, _CONTINUATION_MASK = 0x80, 0xC0


class LlamaVocabulary:
    """The entries of one loaded vocabulary, which must outlive it."""

    def __init__(self, handle: int, encode: Callable[[bytes], Ids]) -> None:
        """Look at a vocabulary; `encode` is its tokenizer, without special tokens."""
        self._handle = handle
        self._encode = encode
        has_any = llama_cpp.llama_vocab_type(handle) != NO_VOCABULARY
        self._size = int(llama_cpp.llama_vocab_n_tokens(handle)) if has_any else 0
        self._known: dict[int, bytes] = {}
        """Entries that were asked for; never more than there are."""
        self._hidden = np.zeros(self._size, np.bool_)
        """Whether no text can spell an entry, where it was looked at."""
        self._looked = np.zeros(self._size, np.bool_)
        self._adds_space: bool | None = None

    def __repr__(self) -> str:
        return f"<LlamaVocabulary [{self._size} entries]>"

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._size

    def pieces(self, tokens: Ids) -> list[str]:
        """Return each entry as text, a word's space before it."""
        return [piece.decode("utf-8", "replace") for piece in self._bytes(tokens)]

    def special(self, tokens: Ids) -> npt.NDArray[np.bool_]:
        """Say of each token whether it is a control or an unused one."""
        self._require_within(tokens)
        for token in np.unique(tokens[~self._looked[tokens]]).tolist():
            attributes = llama_cpp.llama_vocab_get_attr(self._handle, token)
            self._hidden[token] = attributes & HIDDEN != 0
            self._looked[token] = True  # last: other threads go by it
        found: npt.NDArray[np.bool_] = self._hidden[tokens]
        return found

    def chars_at_least(self, tokens: Ids) -> int:
        """Return a quarter of the bytes: no character of UTF-8 has more than four."""
        joined = sum(map(len, self._bytes(tokens)))
        return max(0, joined - 1) // UTF8_BYTES_MAX

    def text(self, tokens: Ids) -> str:
        """Return the text that tokens stand for, less a space that the tokenizer puts first."""
        joined = b"".join(self._bytes(tokens))
        if self._puts_space_first():
            joined = joined.removeprefix(b" ")
        return joined.decode("utf-8", "replace")

    def spans(self, text: str, tokens: Ids) -> npt.NDArray[np.int64] | None:
        """Return where each token begins and ends, if the tokens together are the text.

        A character of which several tokens have bytes belongs to each of them.
        """
        pieces = self._bytes(tokens)
        whole, joined = text.encode("utf-8", "replace"), b"".join(pieces)
        skipped = int(joined != whole and self._puts_space_first() and joined[:1] == b" ")
        if joined[skipped:] != whole:
            return None
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64) - skipped
        starts = np.maximum(0, np.concatenate([[0], ends])[:-1].astype(np.int64))
        raw = np.frombuffer(whole, np.uint8)
        begins = (raw & _CONTINUATION_MASK) != _CONTINUATION
        before = np.concatenate([[0], np.cumsum(begins)]).astype(np.int64)
        inside = np.append(~begins, False)
        found = np.stack([before[starts] - inside[starts], before[np.maximum(0, ends)]], axis=1)
        return found.astype(np.int64)

    def _bytes(self, tokens: Ids) -> list[bytes]:
        self._require_within(tokens)
        known = self._known
        # Not by a difference of sets, which would look at every known one.
        for token in set(tokens.tolist()):
            if token not in known:
                known[token] = self._piece(token)
        return [known[token] for token in tokens.tolist()]

    def _piece(self, token: int) -> bytes:
        room = PIECE_BYTES
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            # Nothing is stripped, and special ones are written by their names.
            count = llama_cpp.llama_token_to_piece(self._handle, token, buffer, room, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            room = -count
        raise InferenceFailed("llama.cpp could not spell a token")

    def _puts_space_first(self) -> bool:
        if self._adds_space is None:
            self._adds_space = b"".join(self._bytes(self._encode(b"a"))).startswith(b" ")
        return self._adds_space

    def _require_within(self, tokens: Ids) -> None:
        """Assert what callers have checked, because the library would end the process."""
        assert len(tokens) == 0 or 0 <= int(tokens.min()) <= int(tokens.max()) < self._size
