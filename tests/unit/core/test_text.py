"""Text from elsewhere: nothing of it steers a terminal, splits a line or turns its direction."""

import json
import logging
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import InvalidModelFile, InvalidRequest
from appliance.core.text import cells, padded, visible, visible_lines
from appliance.logs import JsonFormatter, TextFormatter
from appliance.observe.log_buffer import LogBuffer

ANY_TEXT = st.text(st.characters())  # all of Unicode, unpaired surrogates too
STEERING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def steers(text):
    return [c for c in text if unicodedata.category(c) in STEERING]


@given(ANY_TEXT, st.integers(1, 40))
def test_what_is_shown_cannot_steer_and_is_bounded(text, chars_max):
    shown = visible(text, chars_max=chars_max)
    assert steers(shown) == []
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= chars_max
    shown.encode()


@given(ANY_TEXT)
def test_what_can_be_seen_stays_and_what_was_shown_is_shown_alike_again(text):
    shown = visible(text)
    assert visible(shown) == shown
    if text.isprintable():
        assert shown == text
    # Nothing is dropped: read back as escapes, it is the text.
    if "\\" not in text and text.isascii():
        assert shown.encode().decode("unicode_escape") == text


@given(st.lists(ANY_TEXT, max_size=5))
def test_lines_stay_lines_and_become_no_more(lines):
    plain = [line.replace("\n", "") for line in lines]
    shown = visible_lines("\n".join(plain))
    assert shown.split("\n") == [visible(line) for line in plain or [""]]


def test_every_character_of_unicode_is_kept_or_escaped():
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        shown = visible(letter)
        assert shown.isprintable()
        assert (shown == letter) == letter.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("a\u2028b", "a\\u2028b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\ue000", "\\ue000"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\ufeff\u200b", "\\ufeff\\u200b"),
        ("naïve 文書 😀 [bold]", "naïve 文書 😀 [bold]"),
    ],
)
def test_what_replaces_what(text, shown):
    assert visible(text) == shown


def test_an_escape_is_never_cut_in_two():
    assert visible("abc\x1b", chars_max=6) == "abc…"
    assert visible("abc\x1b", chars_max=7) == "abc\\x1b"
    assert visible("x" * 9, chars_max=5) == "xxxx…"


HOSTILE = "\x1b]0;owned\x07\u202e\nfake line\u2028\x9b2J"


def test_an_error_never_carries_what_steers_a_terminal(tmp_path):
    for error in (
        InvalidRequest(f"tokenizer {HOSTILE} is not known"),
        InvalidModelFile(tmp_path / f"a{HOSTILE}.gguf", f"architecture {HOSTILE}"),
    ):
        assert steers(error.message) == steers(str(error)) == []
    assert len(InvalidRequest("x" * 1_000_000).message) < 10_000


def record(message, *, exc=None):
    info = (type(exc), exc, None) if exc else None
    return logging.LogRecord("gigarouter.x", logging.INFO, "f", 1, "%s", (message,), info)


def test_no_log_line_carries_it_in_either_format_or_in_the_buffer():
    kept = LogBuffer()
    for made in (record(HOSTILE), record("read", exc=ValueError(HOSTILE))):
        lines = TextFormatter().format(made).split("\n")
        assert steers("".join(lines)) == []
        assert not any(line.startswith("fake line") for line in lines if made.args[0] == HOSTILE)
        told = json.loads(JsonFormatter().format(made))
        assert steers(told["message"]) == []
        assert steers(told.get("exception", "").replace("\n", "")) == []
        kept.emit(made)
        assert steers(kept.after("").data[-1].message.replace("\n", "")) == []


def test_an_exception_that_another_handler_wrote_first_is_made_visible_all_the_same():
    made = record("read", exc=ValueError("\x1b[2J"))
    logging.Formatter().format(made)  # keeps its own text in the record
    assert "\x1b" not in TextFormatter().format(made)


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("abc", 3),
        ("\u65e5\u672c\u8a9e", 6),
        ("Zo\u00eb", 3),
        ("Zoe\u0308", 3),
        ("\uff76\uff85", 2),
        ("", 0),
    ],
)
def test_the_columns_of_a_text_are_counted_and_not_its_characters(text, wide):
    assert cells(text) == wide
    assert cells(padded(text, 8)) == 8
    assert padded(text, 0) == text
