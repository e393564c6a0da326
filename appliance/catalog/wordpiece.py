"""Wordpiece: BERT's tokenizer, read from the files of a model folder.

Reads tokenizer.json, or vocab.txt if there is none, and refuses a tokenizer with any step that
cannot be rebuilt from a GGUF file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec

from appliance.catalog.folder import decode, read_bytes
from appliance.core.errors import InvalidModelFile

CONTINUATION = "##"
"""The prefix of pieces that continue a word."""

_MAX_WORD_CHARS = 100
"""Characters of the longest word that is split; the default of Hugging Face's tokenizers."""


class _Token(msgspec.Struct):
    content: str


class _Names(msgspec.Struct):
    """Special tokens and options of tokenizer_config.json and special_tokens_map.json."""

    cls_token: str | _Token | None = None
    sep_token: str | _Token | None = None
    unk_token: str | _Token | None = None
    pad_token: str | _Token | None = None
    mask_token: str | _Token | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None


class _Added(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _Normalizer(msgspec.Struct):
    type: str = "BertNormalizer"
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class _Step(msgspec.Struct):
    type: str = ""


class _Part(msgspec.Struct):
    id: str
    type_id: int = 0


class _Processor(msgspec.Struct):
    type: str = ""
    single: list[dict[str, _Part]] = []
    pair: list[dict[str, _Part]] = []
    cls: tuple[str, int] = ("", 0)
    sep: tuple[str, int] = ("", 0)


class _Model(msgspec.Struct):
    vocab: dict[str, int]
    unk_token: str = "[UNK]"  # noqa: S105 - a token of text
    continuing_subword_prefix: str = CONTINUATION
    max_input_chars_per_word: Annotated[int, msgspec.Meta(gt=0, le=1 << 20)] = _MAX_WORD_CHARS


class _Outline(msgspec.Struct):
    """The parts of tokenizer.json that have the same form for every kind of tokenizer."""

    model: _Step
    normalizer: _Step | None = None
    pre_tokenizer: _Step | None = None


class _Tokenizer(msgspec.Struct):
    model: _Model
    normalizer: _Normalizer
    post_processor: _Processor | None = None
    added_tokens: list[_Added] = []


@dataclass(frozen=True, slots=True)
class Wordpiece:
    """The vocabulary, special tokens and options of one BERT tokenizer."""

    path: Path
    """The file that holds the vocabulary."""
    ids: Mapping[str, int]
    """Id of each token, spelt as in the file; the ids are not checked."""
    added: Mapping[str, bool]
    """Tokens that are matched in a text before it is split into words; True: a special token."""
    cls: str
    sep: str
    unk: str
    pad: str
    mask: str
    lowercase: bool
    strip_accents: bool | None
    """None: the same as `lowercase`."""
    clean_text: bool
    chinese_chars: bool
    """True: each CJK ideograph is a separate word."""
    max_word_chars: int
    """A word with more characters becomes the unknown token."""


def read_wordpiece(folder: Path) -> Wordpiece:
    """Read the tokenizer of a model folder.

    Raises:
        InvalidModelFile: files are missing, damaged or contradictory, or describe a tokenizer of
            another kind.
    """
    names = _names(folder)
    path = folder / "tokenizer.json"
    if path.exists():
        tokenizer = _from_json(path, names)
    else:
        path = folder / "vocab.txt"
        tokenizer = _from_lines(path, names)
    ids = tokenizer.model.vocab
    for added in tokenizer.added_tokens:
        if ids.setdefault(added.content, added.id) != added.id:
            _refuse(path, f"token {added.content!r} has two ids")
    normalizer = tokenizer.normalizer
    return Wordpiece(
        path=path,
        ids=ids,
        added={added.content: added.special for added in tokenizer.added_tokens},
        cls=_text(names.cls_token, "[CLS]"),
        sep=_text(names.sep_token, "[SEP]"),
        unk=_text(names.unk_token, "[UNK]"),
        pad=_text(names.pad_token, "[PAD]"),
        mask=_text(names.mask_token, "[MASK]"),
        lowercase=normalizer.lowercase,
        strip_accents=normalizer.strip_accents,
        clean_text=normalizer.clean_text,
        chinese_chars=normalizer.handle_chinese_chars,
        max_word_chars=tokenizer.model.max_input_chars_per_word,
    )


def _names(folder: Path) -> _Names:
    """Return the declared special tokens and options, each from the first file that has it."""
    merged = _Names()
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / file
        if not path.exists():
            continue
        declared = decode(path, read_bytes(path), _Names)
        for field in _Names.__struct_fields__:
            if getattr(merged, field) is None:
                setattr(merged, field, getattr(declared, field))
    return merged


def _from_json(path: Path, names: _Names) -> _Tokenizer:
    raw = read_bytes(path)
    outline = decode(path, raw, _Outline)
    steps = (
        ("model", outline.model, "WordPiece"),
        ("normalizer", outline.normalizer, "BertNormalizer"),
        ("pre_tokenizer", outline.pre_tokenizer, "BertPreTokenizer"),
    )
    for what, step, supported in steps:
        found = step.type if step else None
        if found != supported:
            _refuse(path, f"{what} {found!r} is not supported; {supported!r} is")
    tokenizer = decode(path, raw, _Tokenizer)
    if tokenizer.model.continuing_subword_prefix != CONTINUATION:
        prefix = tokenizer.model.continuing_subword_prefix
        _refuse(path, f"prefix {prefix!r} is not supported; {CONTINUATION!r} is")
    if tokenizer.model.unk_token != _text(names.unk_token, "[UNK]"):
        _refuse(path, "unk_token is another one than tokenizer_config.json has")
    _check_switches(path, tokenizer.normalizer, names)
    _check_processor(path, tokenizer.post_processor, names)
    return tokenizer


def _from_lines(path: Path, names: _Names) -> _Tokenizer:
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InvalidModelFile(path, "is not UTF-8") from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    # As in the reference, a repeated line has the id of its last occurrence; the ids of the earlier
    # ones stay without a token.
    vocab = {token: index for index, token in enumerate(lines)}
    return _Tokenizer(
        model=_Model(vocab=vocab, unk_token=_text(names.unk_token, "[UNK]")),
        normalizer=_Normalizer(
            lowercase=names.do_lower_case is not False,
            strip_accents=names.strip_accents,
            handle_chinese_chars=names.tokenize_chinese_chars is not False,
        ),
    )


def _check_switches(path: Path, normalizer: _Normalizer, names: _Names) -> None:
    """Refuse contradictory files: which file the reference follows depends on its version."""
    pairs = (
        ("do_lower_case", names.do_lower_case, normalizer.lowercase),
        ("strip_accents", names.strip_accents, normalizer.strip_accents),
        ("tokenize_chinese_chars", names.tokenize_chinese_chars, normalizer.handle_chinese_chars),
    )
    for switch, declared, used in pairs:
        if declared is not None and declared != used:
            _refuse(path, f"{switch} is {used} here and {declared} in tokenizer_config.json")


def _check_processor(path: Path, processor: _Processor | None, names: _Names) -> None:
    cls, sep = _text(names.cls_token, "[CLS]"), _text(names.sep_token, "[SEP]")
    if processor is not None and processor.type == "BertProcessing":
        exact = (processor.cls[0], processor.sep[0]) == (cls, sep)
    elif processor is not None and processor.type == "TemplateProcessing":
        single = [(part.id, part.type_id) for item in processor.single for part in item.values()]
        pair = [(part.id, part.type_id) for item in processor.pair for part in item.values()]
        exact = single == [(cls, 0), ("A", 0), (sep, 0)]
        exact = exact and pair == [*single, ("B", 1), (sep, 1)]
    else:
        exact = False
    if not exact:
        _refuse(path, f"post_processor is not '{cls} A {sep} B {sep}' with B as segment 1")


def _text(name: str | _Token | None, default: str) -> str:
    if name is None:
        return default
    return name if isinstance(name, str) else name.content


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InvalidModelFile(path, reason)
