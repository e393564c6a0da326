"""Vocabulary: from token ids back to text.

Owns what every vocabulary promises, and BERT's own. WordPiece throws away letter case, accents and
spaces before it looks pieces up, so the text that ids give is not the text that they came from; it
is one that gives the same ids again, unless it has pieces that no text of its kind could have.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
"""int32[n_tokens]"""

_CONTINUES = "##"
_CLOSING = frozenset(".,;:!?)]}%")
_OPENING = frozenset("([{")
_GLUE = "'"
"""Punctuation is a word of its own wherever it stands, so spaces beside it change no id."""


class Vocabulary(Protocol):
    """The entries of a tokenizer by id; may be used from several threads at once."""

    @property
    def size(self) -> int:
        """How many entries there are: ids are 0 to size - 1."""
        ...

    def pieces(self, tokens: Ids) -> list[str]:
        """Return each entry as text; bytes that are not whole characters are U+FFFD."""
        ...

    def special(self, tokens: Ids) -> npt.NDArray[np.bool_]:
        """Say of each token whether it is one that no text can spell, bool[n_tokens]."""
        ...

    def chars_at_least(self, tokens: Ids) -> int:
        """Return how many characters the text of tokens has at least, a quarter or more of them.

        Nothing is joined for it.
        """
        ...

    def text(self, tokens: Ids) -> str:
        """Return the text that tokens stand for; special ones are written by their names."""
        ...


class WordPieceVocabulary:
    """BERT's entries."""

    def __init__(self, vocabulary: Mapping[str, int], specials: Mapping[int, str]) -> None:
        """Turn a vocabulary round.

        `vocabulary` has the id of each piece, `specials` the names of ids that it lacks or knows
        by another name.
        """
        named = {token: piece for piece, token in vocabulary.items()} | dict(specials)
        self._pieces = [named.get(token, "") for token in range(max(named, default=-1) + 1)]
        self._lengths = np.array(
            [len(piece.removeprefix(_CONTINUES)) for piece in self._pieces], np.int64
        )
        self._special = np.ones(len(self._pieces), np.bool_)
        self._special[list(vocabulary.values())] = False

    def __repr__(self) -> str:
        return f"<WordPieceVocabulary [{self.size} entries]>"

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self._pieces)

    def pieces(self, tokens: Ids) -> list[str]:
        """Return each entry as BERT spells it, `##` before what goes on with a word."""
        return [self._pieces[token] for token in tokens.tolist()]

    def special(self, tokens: Ids) -> npt.NDArray[np.bool_]:
        """Say of each token whether no text can spell it; the unknown token is one that some do."""
        found: npt.NDArray[np.bool_] = self._special[tokens]
        return found

    def chars_at_least(self, tokens: Ids) -> int:
        """Return the characters of the pieces without the spaces between them."""
        return int(self._lengths[tokens].sum())

    def text(self, tokens: Ids) -> str:
        """Return words with single spaces between them, and none where punctuation needs none."""
        parts: list[str] = []
        before = ""
        for piece in self.pieces(tokens):
            if piece.startswith(_CONTINUES) and before:
                parts.append(piece.removeprefix(_CONTINUES))
            elif not before or _is_close(before, piece):
                parts.append(piece)
            else:
                parts += (" ", piece)
            before = piece
        return "".join(parts)


def _is_close(before: str, piece: str) -> bool:
    return piece in _CLOSING or before in _OPENING or _GLUE in (before, piece)
