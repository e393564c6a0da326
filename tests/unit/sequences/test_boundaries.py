"""Where texts may be cut: whatever is cut, nothing is lost, and people would cut there."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.sequences import boundaries

ALPHABET = "aB1 .\n!?`#-*=_~\t\r()\"'。！é\u0301\u200d👩🇩🇪\U0001f3fd…।\u00a0"  # noqa: RUF001 - other scripts
texts = st.text(st.sampled_from(ALPHABET), min_size=1, max_size=200) | st.text(min_size=1)


def cut(text, ends):
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def sentences(text):
    return cut(text, boundaries.sentences(text, 0, len(text)))


@given(texts, st.sampled_from(["tokens", "sentences", "markdown"]), st.data())
def test_units_of_every_kind_laid_side_by_side_are_the_part(text, by, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    for kind in boundaries.levels(by, text):
        ends = list(kind(text, start, end))
        assert ends == sorted(set(ends))
        assert ends[0] > start
        assert ends[-1] == end


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four… Five", ["One. ", "Two! ", "Three? ", "Four… ", "Five"]),
        ('"Really?!" she said. "Yes."', ['"Really?!" ', "she said. ", '"Yes."']),
        ("It was 3.14 or 1.000.000. Then", ["It was 3.14 or 1.000.000. ", "Then"]),
        ("see example.com for more. Bye", ["see example.com for more. ", "Bye"]),
        ("Dr. Smith met J. R. R. Tolkien. Ok", ["Dr. Smith met J. R. R. Tolkien. ", "Ok"]),
        ("Use it, e.g. here, vs. there. Ok", ["Use it, e.g. here, vs. there. ", "Ok"]),
        ("Vgl. Abb. bzw. z.B. Seite 3. Gut", ["Vgl. Abb. bzw. z.B. Seite 3. ", "Gut"]),
        ("1. First\n2. Second", ["1. First\n2. Second"]),
        ("a title\n\nits text\n \n\nmore", ["a title\n\n", "its text\n \n\n", "more"]),
        ("wrapped\nat a column. Next", ["wrapped\nat a column. ", "Next"]),
        ("你好。世界！「是。」好吗？", ["你好。", "世界！", "「是。」", "好吗？"]),  # noqa: RUF001 - other scripts
        ("مرحبا بك؟ نعم۔ كيف", ["مرحبا بك؟ ", "نعم۔ ", "كيف"]),  # noqa: RUF001 - other scripts
        ("नमस्ते। आप कैसे हैं॥ ठीक", ["नमस्ते। ", "आप कैसे हैं॥ ", "ठीक"]),
        ("ሰላም። ደህና፧ አዎ", ["ሰላም። ", "ደህና፧ ", "አዎ"]),
        ("Բարեւ։ Այո", ["Բարեւ։ ", "Այո"]),  # noqa: RUF001 - other scripts
        ("no end", ["no end"]),
        ("...", ["..."]),
    ],
)
def test_sentences_end_where_readers_say(text, expected):
    assert sentences(text) == expected


MARKDOWN = """intro

# One

para one
goes on

- item
- item two

## Two
```sh
# no heading

- no item
```
Three
=====
* * *
1. a
2. b
"""


def test_markdown_is_cut_at_headings_of_a_depth_and_above():
    marks = boundaries.markdown(MARKDOWN)
    found = cut(MARKDOWN, boundaries.sections(marks, 1, MARKDOWN, 0, len(MARKDOWN)))
    assert [unit.split("\n")[0] for unit in found] == ["intro", "# One", "Three"]
    found = cut(MARKDOWN, boundaries.sections(marks, 2, MARKDOWN, 0, len(MARKDOWN)))
    assert [unit.split("\n")[0] for unit in found] == ["intro", "# One", "## Two", "Three"]


def test_markdowns_blocks_keep_fenced_code_whole_and_headings_with_what_follows():
    marks = boundaries.markdown(MARKDOWN)
    found = cut(MARKDOWN, boundaries.blocks(marks, MARKDOWN, 0, len(MARKDOWN)))
    assert found == [
        "intro\n\n",
        "# One\n\npara one\ngoes on\n\n",
        "- item\n",
        "- item two\n\n",
        "## Two\n```sh\n# no heading\n\n- no item\n```\n",
        "Three\n=====\n* * *\n",
        "1. a\n",
        "2. b\n",
    ]


@pytest.mark.parametrize("text", ["~~~~\n~~~\n# x\n~~~~\n# y", "```\n# x\n``` a\n# x\n```\n# y"])
def test_a_fence_ends_with_one_of_its_kind_that_is_as_long(text):
    depths = [depth for _, depth in boundaries.markdown(text)]
    assert depths == [0, 1]


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("ae\u0301b", 2, 1),
        ("a\r\nb", 2, 1),
        ("a👩\u200d👧b", 3, 1),
        ("a👍\U0001f3fdb", 2, 1),
        ("x🇩🇪🇫🇷", 2, 1),
        ("x🇩🇪🇫🇷", 3, 3),
        ("abc", 2, 2),
        ("a" + "\u0301" * 200, 150, 150),
        ("🇩🇪", 1, 1),
    ],
)
def test_signs_of_several_code_points_stay_whole_where_they_can(text, place, expected):
    assert boundaries.cluster_end(text, 0, place) == expected


@pytest.mark.parametrize("run", [".", "!?", "…", ". ", "。", "\n", "\n ", '."', "。.", ".\u200b"])
def test_a_long_run_of_marks_is_read_once(run):
    # Read again from each of its characters, a million of them would take hours.
    text = "One." + run * (300_000 // len(run)) + "a"
    assert boundaries.sentences(text, 0, len(text))[-1] == len(text)


@pytest.mark.parametrize(
    "line", ["-" * 300_000 + "x", "- " * 150_000 + "x", "a\n" + "=" * 300_000 + "x", " " * 300_000]
)
def test_a_line_of_marks_takes_no_memory_for_each_of_them(line):
    tracemalloc.start()
    try:
        boundaries.markdown(line)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(line)


@pytest.mark.parametrize(
    ("line", "is_rule"),
    [("---", True), ("* * *  ", True), (" _\t_ _", True), ("--", False), ("--- x", False)],
)
def test_a_rule_is_three_marks_of_one_kind_and_nothing_else(line, is_rule):
    marks = boundaries.markdown(f"# a\n{line}\n{line}")
    assert (len(marks) == 3) is is_rule
