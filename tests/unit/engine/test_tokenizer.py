# ruff: noqa: RUF001 - characters that look like others are what is tested
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine import tokenizer as module
from appliance.engine.reference_tokenizer import (
    reference_tokenizer,
)

GOLDEN = Path(__file__).parents[2] / "golden"
CONTROL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
UNK = 100


def as_gguf(vocabulary: list[str], **flags: object) -> dict[str, object]:
    """The metadata that llama.cpp's own converter writes for a BERT vocabulary."""

    def spelled(piece: str) -> str:
        if piece in CONTROL:
            return piece
        return piece[2:] if piece.startswith("##") else f"\u2581{piece}"

    ids = {
        f"{name}_token_id": value
        for name, value in (
            ("bos", 101),
            ("eos", 102),
            ("unknown", 100),
            ("seperator", 102),
            ("padding", 0),
            ("cls", 101),
            ("mask", 103),
        )
    }
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [spelled(piece) for piece in vocabulary],
        "tokenizer.ggml.token_type": [3 if piece in CONTROL else 1 for piece in vocabulary],
        **{f"tokenizer.ggml.{name}": value for name, value in ids.items()},
        **flags,
    }


VOCABULARY = (GOLDEN / "tiny-cross-encoder/vocab.txt").read_text("utf-8").splitlines()
METADATA = as_gguf(VOCABULARY)


def load_reference() -> tokenizers.Tokenizer:
    reference = tokenizers.Tokenizer.from_file(str(GOLDEN / "tiny-cross-encoder/tokenizer.json"))
    reference.no_truncation()
    reference.no_padding()
    return reference


REFERENCE = load_reference()
OURS = reference_tokenizer(METADATA)
assert OURS is not None


def ids(text: str) -> list[int]:
    return OURS.encode([text])[0].tolist()


def reference_ids(text: str, reference: tokenizers.Tokenizer = REFERENCE) -> list[int]:
    return reference.encode(text, add_special_tokens=False).ids


TEXTS = {
    "empty": "",
    "plain": "The quick brown fox jumps over the lazy dog.",
    "accents": "Crème brûlée, naïve façade, Ångström, São Paulo, Žižek, İstanbul ILICA, ſtraße",
    "decomposed accents": "cre\u0300me bru\u0302le\u0301e A\u030angstro\u0308m",
    "german": "Donaudampfschifffahrtsgesellschaftskapitänsmütze heißt GROẞ",
    "greek": "Ὀδυσσεύς ΟΔΥΣΣΕΥΣ άνθρωπος ς Σ",
    "cyrillic": "Съешь ещё этих мягких французских булок, йод Їжак",
    "arabic": "السَّلامُ عَلَيْكُمْ ﻻ مرحبا بالعالم ١٢٣",
    "hebrew": "שָׁלוֹם עוֹלָם בראשית",
    "devanagari": "नमस्ते दुनिया क्षत्रिय हिन्दी ज़िंदगी",
    "bengali": "আমি বাংলায় গান গাই",
    "thai": "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "chinese": "北京是中国的首都。中華人民共和國 𠀀𪚥 豈更",
    "japanese": "東京タワーは高いです。カタカナ ｶﾀｶﾅ ひらがな がぎ",
    "hangul": "안녕하세요 세계 \u1112\u1161\u11ab\u1100\u116e\u11a8",
    "emoji": "I 😀 love 🍕🍕 and 🇫🇷 ☕️ ❤️",
    "zero width joiner": "👩‍👩‍👧‍👦 👨🏽‍💻 a\u200db a\u200bb a\u2060b \ufefftext",
    "control characters": "a\x01b\x07c\x1bd\x7fe\x80f\x85g \x0bh\x0ci\x1cj\x1fk \xadsoft",
    "nul": "a\x00b \x00 c\x00",
    "replacement character": "a\ufffdb \ufffd",
    "private use": "\ue000\uf8ff \U0010ffff \ufdd0",
    "bidirectional marks": "\u202eabc\u202c \u200eabc\u200f",
    "combining marks only": "\u0301\u0302\u20dd\u0903",
    "many marks": "a" + "\u0301" * 300 + "b",
    "100 letters": "a" * 100,
    "101 letters": "a" * 101,
    "180 letters": "abcdefghi" * 20 + " after",
    "100 letters after stripping": "é" * 100,
    "100 letters before stripping": "e\u0301" * 51,
    "whitespace": " a\tb\nc\rd\u00a0e\u2003f\u3000g\u2028h\u2029i\u1680j\r\n k  ",
    "only whitespace": " \t\n\u3000",
    "punctuation": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ «»„“”‘’…—–¿¡§¶†‡•",
    "symbols": "€£¥ © ® ™ ± × ÷ ≠ ∞ √ ½ ² ₂ ℝ Ⅷ ① ﬁ ﬀ",
    "code": "def f(x: int) -> int:\n\treturn x**2 + 3  # no_op\nif __name__ == '__main__': f(1)",
    "url": "https://example.org/a_b-c?d=e&f=%20#g user@example.org",
    "number": "1,234,567.89 0xDEADBEEF 1e-9 2024-05-06T07:08:09Z",
    "hashes": "## ##ing # #a ##a",
    "word start mark": "\u2581the \u2581 the\u2581",
    "unused": "[unused1] [unused99]",
    "math letters": "𝐇𝐞𝐥𝐥𝐨 𝔀𝓸𝓻𝓵𝓭 Ｈｅｌｌｏ",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_tokens_are_the_references(text):
    assert ids(text) == reference_ids(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("segment_chars", [1, 3, 7])
def test_a_text_given_in_segments_has_the_tokens_of_the_whole(monkeypatch, text, segment_chars):
    monkeypatch.setattr(module, "SEGMENT_CHARS", segment_chars)
    assert ids(text) == reference_ids(text)


def spells_no_special(text):
    """The reference takes these for special tokens, which no text of a client may spell."""
    return not re.search(r"\[(PAD|UNK|CLS|SEP|MASK)\]", text)


@settings(deadline=None)  # a busy machine is no bug
@given(text=st.text(max_size=300).filter(spells_no_special))
def test_any_text_has_the_references_tokens(text):
    assert ids(text) == reference_ids(text)


# Characters at which words end, join, vanish or change, so that segments meet every rule.
edges = st.text(
    st.sampled_from(
        "ab é\u0301\u0308\u0323Åßİ \t\n\r\x00\x0b\x0c\x1c\x85\xa0\u200d\u3000-._[]#中文豈𠀀かが한\u1100\u1161\u11a8कि्😀\ufe0f\ufffd"
    ),
    max_size=200,
)


@settings(deadline=None)  # a busy machine is no bug
@given(text=edges, segment_chars=st.integers(min_value=1, max_value=9))
def test_any_segmentation_has_the_references_tokens(text, segment_chars):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEGMENT_CHARS", segment_chars)
        assert ids(text) == reference_ids(text)


@settings(deadline=None)  # a busy machine is no bug
@given(
    texts=st.lists(st.text(max_size=40).filter(spells_no_special), max_size=20),
    segment_chars=st.integers(1, 60),
)
def test_each_text_has_its_own_tokens_in_order(texts, segment_chars):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEGMENT_CHARS", segment_chars)
        encoded = OURS.encode(texts)
    assert [row.tolist() for row in encoded] == [reference_ids(text) for text in texts]
    assert all(row.dtype == np.int32 for row in encoded)


def test_no_texts_have_no_tokens():
    assert OURS.encode([]) == []


def test_the_embedding_models_golden_texts_have_its_token_counts():
    items = json.loads((GOLDEN / "all-minilm-l6-v2.json").read_text("utf-8"))["items"]
    assert items
    for item in items:
        assert min(len(ids(item["text"])) + 2, 512) == item["tokens"], item["text"][:80]


def test_the_cross_encoders_golden_pairs_have_its_token_counts():
    items = json.loads((GOLDEN / "tiny-cross-encoder.json").read_text("utf-8"))["items"]
    assert items
    for item in items:
        tokens = len(ids(item["query"])) + len(ids(item["document"])) + 3
        assert min(tokens, 512) == item["tokens"], item["document"][:80]


# -- nothing that a user types is a special token -----------------------------------------------

WRAPPINGS = [
    "{}",
    " {} ",
    "\t{}\n",
    "a{}b",
    "{0}{0}",
    "the {} end",
    "\u3000{}\u00a0",
    "\u200d{}\ufeff",
    "中{}文",
    "[{}]",
    "##{}",
    "\u2581{}",
]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("token", CONTROL)
def test_a_special_token_typed_by_a_user_is_ordinary_text(token, wrapping):
    inner = token.strip("[]")
    spellings = {
        token,
        token.lower(),
        token.title(),
        f"[ {inner} ]",
        f"[\t{inner}\n]",
        f"[\x00{inner}]",
        f"[{inner}\u0301]",
        f"[\u200b{inner}]",
        f"［{inner}］",
        inner,
        inner.lower(),
        "\u0301".join(token),
        "\x00".join(token),
        f"##{inner}",
    }
    for spelling in spellings:
        assert not set(ids(wrapping.format(spelling))) & (set(CONTROL.values()) - {UNK}), spelling


def test_a_typed_separator_is_a_bracket_a_word_and_a_bracket():
    pieces = [VOCABULARY[token] for token in ids("one [SEP] two")]
    assert pieces == ["one", "[", "sep", "]", "two"]


def test_the_unknown_token_cannot_be_spelled():
    assert UNK not in ids("[UNK] unknown  unknown  UNK [ UNK ]")
    assert ids("🍕") == [UNK]


@settings(deadline=None)  # a busy machine is no bug
@given(text=st.text(st.sampled_from("[]SEPCLMAKUNDsepclmakund# \t\x00\u0301\u200d▁"), max_size=60))
def test_no_text_of_brackets_and_letters_reaches_a_special_token(text):
    assert not set(ids(text)) & (set(CONTROL.values()) - {UNK})


# -- hostile and long texts ---------------------------------------------------------------------


def test_lone_surrogates_vanish_and_do_not_fail_their_neighbours():
    rows = OURS.encode(["hello \ud800world", "\udfff", "good day"])
    assert [row.tolist() for row in rows] == [ids("hello world"), [], ids("good day")]


LONG = 1_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a" * 50_000, [UNK], id="one letter"),
        pytest.param(" " * LONG, [], id="spaces"),
        pytest.param("中" * (LONG // 3), reference_ids("中") * (LONG // 3), id="ideographs"),
        pytest.param("😀" * (LONG // 4), [UNK], id="emoji"),
        pytest.param("\u0301" * (LONG // 2), [], id="marks"),
        pytest.param("!" * (LONG // 4), reference_ids("!") * (LONG // 4), id="punctuation"),
    ],
)
def test_a_long_text_is_tokenized_whole(text, expected):
    [found] = OURS.encode([text], 10**9)
    assert found.tolist() == expected


def test_a_text_with_more_tokens_than_any_model_takes_is_left_off_at_a_segment():
    text = "! " * 1_000_000
    found = ids(text)
    assert module.TOKENS_ENOUGH <= len(found) <= module.TOKENS_ENOUGH + module.SEGMENT_CHARS
    assert found == reference_ids("!") * len(found)


@pytest.mark.parametrize("enough", [1, 510, 8_190])
def test_a_text_is_left_off_soon_after_what_is_wanted_of_it(enough):
    text = "word " * 200_000
    [found] = OURS.encode([text], enough)
    whole = reference_ids("word") * 200_000
    assert enough < len(found) <= enough + max(module.SEGMENT_CHARS_MIN, 16 * enough)
    assert found.tolist() == whole[: len(found)]


def test_leaving_off_one_text_does_not_shorten_its_neighbours():
    long, short = OURS.encode(["! " * 1_000_000, "hello world"])
    assert len(long) >= module.TOKENS_ENOUGH
    assert short.tolist() == reference_ids("hello world")


def test_threads_share_one_tokenizer():
    texts = [f"{text} {number}" for number in range(5) for text in TEXTS.values()]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ids, texts)) == [reference_ids(text) for text in texts]


COUNT_THREADS = """
import os
from tests.unit.engine.test_tokenizer import METADATA
from appliance.engine.reference_tokenizer import reference_tokenizer
ours = reference_tokenizer(METADATA)
before = len(os.listdir("/proc/self/task"))
ours.encode(["some text"] * 100)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_batch_starts_no_threads_of_the_library():
    environment = {
        key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"
    }
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert counted.stdout.strip() == "0"


def test_repr_names_the_vocabulary_and_the_flags():
    assert repr(OURS).startswith(
        f"<WordPieceTokenizer [{len(VOCABULARY) - len(CONTROL) + 1} pieces | "
    )
    assert "lowercase=True" in repr(OURS)
