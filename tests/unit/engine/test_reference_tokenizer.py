"""A tokenizer is rebuilt from a file exactly, or not at all."""

import pytest
from tokenizers import normalizers

from appliance.core.errors import LoadFailed
from appliance.engine import tokenizer as module
from appliance.engine.reference_tokenizer import (
    SpecialTokens,
    TokenType,
    reference_tokenizer,
    special_tokens,
)
from tests.unit.engine.test_tokenizer import (
    CONTROL,
    METADATA,
    TEXTS,
    UNK,
    VOCABULARY,
    as_gguf,
    load_reference,
    reference_ids,
)

# -- flags --------------------------------------------------------------------------------------

FLAG_CASES = [
    ({}, normalizers.BertNormalizer()),
    ({"gigarouter.tokenizer.lowercase": True}, normalizers.BertNormalizer(strip_accents=None)),
    ({"gigarouter.tokenizer.lowercase": False}, normalizers.BertNormalizer(lowercase=False)),
    (
        {"gigarouter.tokenizer.lowercase": False, "gigarouter.tokenizer.strip_accents": True},
        normalizers.BertNormalizer(lowercase=False, strip_accents=True),
    ),
    (
        {"gigarouter.tokenizer.lowercase": True, "gigarouter.tokenizer.strip_accents": False},
        normalizers.BertNormalizer(strip_accents=False),
    ),
    (
        {"gigarouter.tokenizer.chinese_chars": False},
        normalizers.BertNormalizer(handle_chinese_chars=False),
    ),
    (
        {"gigarouter.tokenizer.clean_text": False},
        normalizers.BertNormalizer(clean_text=False),
    ),
    (
        {"tokenizer.ggml.normalizer.lowercase": False},
        normalizers.BertNormalizer(lowercase=False),
    ),
    (
        {
            "tokenizer.ggml.normalizer.lowercase": True,
            "tokenizer.ggml.normalizer.strip_accents": False,
        },
        normalizers.BertNormalizer(strip_accents=False),
    ),
    (
        # Ours leaves strip_accents out to mean "as lowercase"; llama.cpp's is not consulted.
        {
            "gigarouter.tokenizer.lowercase": True,
            "tokenizer.ggml.normalizer.lowercase": False,
            "tokenizer.ggml.normalizer.strip_accents": False,
        },
        normalizers.BertNormalizer(),
    ),
]


@pytest.mark.parametrize(("flags", "normalizer"), FLAG_CASES)
def test_the_files_flags_are_the_references(flags, normalizer):
    reference = load_reference()
    reference.normalizer = normalizer
    ours = reference_tokenizer({**METADATA, **flags})
    for segment_chars in (64_000, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "SEGMENT_CHARS", segment_chars)
            rows = ours.encode(list(TEXTS.values()))
        for text, row in zip(TEXTS.values(), rows, strict=True):
            assert row.tolist() == reference_ids(text, reference)


def test_the_longest_word_is_the_files():
    ours = reference_tokenizer({**METADATA, "gigarouter.tokenizer.max_word_chars": 5})
    assert ours.encode(["hello"])[0].tolist() == reference_ids("hello")
    assert ours.encode(["jumping"])[0].tolist() == [UNK]


# -- files that are not what they should be -----------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", None])
def test_another_kind_of_tokenizer_is_left_to_the_caller(kind):
    assert reference_tokenizer({**METADATA, "tokenizer.ggml.model": kind}) is None


def small(**changes: object) -> dict[str, object]:
    vocabulary = [
        "[PAD]",
        *(f"[unused{i}]" for i in range(99)),
        *list(CONTROL)[1:],
        "a",
        "##b",
        "c",
    ]
    return as_gguf(vocabulary, **{f"tokenizer.ggml.{key}": value for key, value in changes.items()})


def test_fillers_are_dropped():
    metadata = small()
    metadata["tokenizer.ggml.tokens"][-1] = "[PAD106]"
    metadata["tokenizer.ggml.token_type"][-1] = TokenType.UNUSED
    assert reference_tokenizer(metadata).encode(["ab c"])[0].tolist() == [104, 105, UNK]


@pytest.mark.parametrize("token_type", [TokenType.USER_DEFINED, TokenType.BYTE])
def test_a_vocabulary_with_rules_that_the_file_lacks_is_left_to_the_caller(token_type):
    metadata = small()
    metadata["tokenizer.ggml.token_type"][-1] = token_type
    assert reference_tokenizer(metadata) is None


def test_a_vocabulary_in_which_two_tokens_are_spelled_alike_is_left_to_the_caller():
    metadata = small()
    metadata["tokenizer.ggml.tokens"][-1] = "\u2581a"
    assert reference_tokenizer(metadata) is None


@pytest.mark.parametrize("key", ["token_type", "unknown_token_id"])
def test_a_file_that_does_not_say_enough_is_left_to_the_caller(key):
    assert reference_tokenizer(small(**{key: None})) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": []}, "no vocabulary"),
        ({"tokens": None}, "no vocabulary"),
        ({"token_type": [1, 1]}, "each of 107 tokens"),
        ({"token_type": 1}, "each of 107 tokens"),
        ({"tokens": [1] * 107}, "no vocabulary"),
        ({"tokens": "abc"}, "no vocabulary"),
        ({"cls_token_id": 107}, r"cls_token_id is 107, outside 0\.\.106"),
        ({"seperator_token_id": -1}, "seperator_token_id is -1"),
        ({"unknown_token_id": 2**32 - 1}, "unknown_token_id is 4294967295"),
        ({"cls_token_id": "101"}, "cls_token_id is '101'"),
        ({"cls_token_id": True}, "cls_token_id is True"),
        ({"cls_token_id": None, "bos_token_id": None}, "does not name tokenizer.ggml.cls_token_id"),
        ({"seperator_token_id": None, "eos_token_id": None}, "seperator_token_id"),
        ({"normalizer.lowercase": "yes"}, "neither true nor false"),
    ],
)
def test_a_damaged_vocabulary_is_refused_by_name(changes, words):
    with pytest.raises(LoadFailed, match=words):
        reference_tokenizer(small(**changes))


@pytest.mark.parametrize("value", [0, -1, "100", True, 1.5])
def test_a_longest_word_that_is_no_positive_number_is_refused(value):
    with pytest.raises(LoadFailed, match="max_word_chars"):
        reference_tokenizer({**small(), "gigarouter.tokenizer.max_word_chars": value})


def test_special_tokens_are_the_files():
    assert special_tokens(METADATA) == SpecialTokens(cls=101, sep=102, unk=100)


def test_special_tokens_of_older_files_are_the_first_and_the_last():
    older = small(cls_token_id=None, seperator_token_id=None, unknown_token_id=None)
    assert special_tokens(older) == SpecialTokens(cls=101, sep=102, unk=None)


def test_a_control_token_spelled_like_a_word_is_unreachable():
    metadata = as_gguf(VOCABULARY)
    word = VOCABULARY.index("dog")
    metadata["tokenizer.ggml.token_type"][word] = TokenType.CONTROL
    ours = reference_tokenizer(metadata)
    assert word not in ours.encode(["the dog"])[0]
