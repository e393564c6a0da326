"""Vocabulary: the tokens of a WordPiece tokenizer in GGUF's spelling.

Decides the order, spelling and kind of each token, such that the original vocabulary can be rebuilt
exactly from what is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from appliance.catalog.wordpiece import CONTINUATION, Wordpiece
from appliance.core.errors import InvalidModelFile

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's numbers for the kinds of token."""
WORD_START = "\u2581"
"""GGUF's mark for a piece that starts a word; WordPiece marks the pieces that continue one."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All tokens by id, and the ids of the special tokens."""

    tokens: tuple[str, ...]
    """By id. `WORD_START + x` starts a word and a bare `x` continues one; tokens that are not
    `NORMAL` are spelt as in the source."""
    kinds: tuple[int, ...]
    """By id: `NORMAL`, `CONTROL`, `USER_DEFINED`, or `UNUSED` for an id without a token."""
    cls: int
    sep: int
    unk: int
    pad: int
    mask: int | None
    """None if the vocabulary has no mask token; only training needs one."""


def spell_vocabulary(wordpiece: Wordpiece, size: int) -> Vocabulary:
    """Return the vocabulary of a model whose token matrix has `size` rows.

    Raises:
        InvalidModelFile: an id is out of range or used twice, a special token is missing, or two
            tokens have the same spelling in GGUF.
    """
    by_id = _by_id(wordpiece, size)
    mask = wordpiece.ids.get(wordpiece.mask)
    special = {name: _id(wordpiece, name) for name in _names(wordpiece)}
    kinds = [UNUSED if token is None else NORMAL for token in by_id]
    for name, is_special in wordpiece.added.items():
        kinds[wordpiece.ids[name]] = CONTROL if is_special else USER_DEFINED
    for index in (*special.values(), mask):
        if index is not None:
            kinds[index] = CONTROL
    return Vocabulary(
        tokens=_spell(wordpiece, by_id, kinds),
        kinds=tuple(kinds),
        cls=special[wordpiece.cls],
        sep=special[wordpiece.sep],
        unk=special[wordpiece.unk],
        pad=special[wordpiece.pad],
        mask=mask,
    )


def _names(wordpiece: Wordpiece) -> tuple[str, ...]:
    return wordpiece.cls, wordpiece.sep, wordpiece.unk, wordpiece.pad


def _id(wordpiece: Wordpiece, name: str) -> int:
    found = wordpiece.ids.get(name)
    if found is None:
        _refuse(wordpiece, f"the special token {name!r} is not in the vocabulary")
    return found


def _by_id(wordpiece: Wordpiece, size: int) -> list[str | None]:
    by_id: list[str | None] = [None] * size
    for token, index in wordpiece.ids.items():
        if not 0 <= index < size:
            _refuse(wordpiece, f"token {token!r} has id {index}; vocab_size is {size}")
        if by_id[index] is not None:
            _refuse(wordpiece, f"tokens {by_id[index]!r} and {token!r} share id {index}")
        by_id[index] = token
    return by_id


def _spell(
    wordpiece: Wordpiece, by_id: Sequence[str | None], kinds: Sequence[int]
) -> tuple[str, ...]:
    spelt: dict[str, None] = {}
    for index, (token, kind) in enumerate(zip(by_id, kinds, strict=True)):
        if token is None:
            piece = f"[PAD{index}]"
        elif kind != NORMAL:
            piece = token
        elif token.startswith(CONTINUATION):
            piece = token.removeprefix(CONTINUATION)
            if piece.startswith(WORD_START):
                _refuse(wordpiece, f"token {token!r} would be read as the start of a word")
        else:
            piece = WORD_START + token
        # llama.cpp aborts the process when a token is repeated.
        if piece in spelt:
            _refuse(wordpiece, f"tokens {list(spelt).index(piece)} and {index} are both {piece!r}")
        spelt[piece] = None
    return tuple(spelt)


def _refuse(wordpiece: Wordpiece, reason: str) -> NoReturn:
    raise InvalidModelFile(wordpiece.path, reason)
