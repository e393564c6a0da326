"""Every error is in the table of `api/error_responses.py`, and every code in the README's."""

import re
from pathlib import Path

import pytest

from appliance.api.error_responses import TABLE
from appliance.core import errors
from appliance.core.errors import ApplianceError, RetryableError

ROOT = Path(__file__).resolve().parents[2]

CLI_ONLY = {
    errors.InvalidSettings: "raised before the server listens",
    errors.DataDirBusy: "raised before the server listens",
    errors.ServerUnreachable: "raised by commands that call a server",
    errors.ServiceRefused: "raised by commands of the service manager",
}
"""Errors that no request can meet, and why."""

UNNAMED = {errors.InvalidCatalog: "inference_failed"}
"""Errors without a code of their own: what clients see instead."""


def leaves(kind: type[ApplianceError] = ApplianceError) -> list[type[ApplianceError]]:
    """Return the ends of the tree, and forks that have a code: they are raised themselves.

    What a room adds below one of them is its own affair.
    """
    children = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    below = [leaf for child in children for leaf in leaves(child)]
    return [kind, *below] if kind.code or not below else below


LEAVES = leaves()


def documented() -> set[tuple[int, str]]:
    """(status, code) of every row of the README's error table."""
    found = set()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for status, codes in re.findall(r"^\| (\d{3}) \| ([^|]+) \|", text, re.MULTILINE):
        found |= {(int(status), code) for code in re.findall(r"`([a-z_]+)`", codes)}
    return found


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_error_has_a_row_or_a_reason_not_to(leaf):
    assert (leaf in TABLE) != (leaf in CLI_ONLY)
    assert leaf not in CLI_ONLY or leaf.code == ""


def test_every_row_is_an_error_that_exists():
    assert set(TABLE) <= set(LEAVES)


@pytest.mark.parametrize("leaf", TABLE, ids=lambda leaf: leaf.__name__)
def test_every_code_stands_in_the_readme_with_its_status(leaf):
    code = leaf.code or UNNAMED[leaf]
    assert (TABLE[leaf].status, code) in documented()


def test_the_readme_promises_no_code_that_nothing_answers():
    answered = {(row.status, leaf.code or UNNAMED[leaf]) for leaf, row in TABLE.items()}
    assert documented() - answered == set()


def test_whoever_may_come_back_is_told_when():
    for leaf, row in TABLE.items():
        assert issubclass(leaf, RetryableError) <= (row.status in (429, 503)), leaf


def test_codes_are_stable_lower_case_words():
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", leaf.code) for leaf in LEAVES if leaf.code)


def test_every_error_has_a_docstring_that_says_what_happened():
    assert [leaf for leaf in LEAVES if not (leaf.__doc__ or "").endswith(".")] == []
