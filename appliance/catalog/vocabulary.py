"""Vocabulary: the tokens of a WordPiece tokenizer as GGUF spells them.

Owns the order, the spelling and the kinds of tokens, and the promise that the reference's own
vocabulary can be rebuilt exactly from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from appliance.catalog.wordpiece import CONTINUATION, Wordpiece
from appliance.core.errors import InvalidModelFile

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's kinds of token."""
WORD_START = "\u2581"
"""GGUF marks the pieces that start a word; WordPiece marks the others."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, and the ids with a meaning of their own."""

    tokens: tuple[str, ...]
    """A normal `x` continues a word and `WORD_START + x` starts one; others are as they are."""
    kinds: tuple[int, ...]
    """`NORMAL`, `CONTROL`, `USER_DEFINED`, or `UNUSED` for an id that has no token."""
    cls: int
    sep: int
    unk: int
    pad: int
    mask: int | None
    """None if there is none; only training needs it."""


def spell_vocabulary(wordpiece: Wordpiece, size: int) -> Vocabulary:
    """Return the vocabulary of a model whose token matrix has `size` rows.

    Raises:
        InvalidModelFile: an id is out of range or taken twice, a special token is missing, or two
            tokens cannot be told apart in GGUF's spelling.
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
        # llama.cpp aborts the process on a repeated token.
        if piece in spelt:
            _refuse(wordpiece, f"tokens {list(spelt).index(piece)} and {index} are both {piece!r}")
        spelt[piece] = None
    return tuple(spelt)


def _refuse(wordpiece: Wordpiece, reason: str) -> NoReturn:
    raise InvalidModelFile(wordpiece.path, reason)
