"""Who gets a page: browsers, and nobody who reads JSON today."""

import pytest

from appliance.pages.accept import RANGES_MAX, prefers_page, takes_gzip

BROWSERS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "TEXT/HTML",
    "application/json;q=0.9, text/html",
    "text/html;q=0.8, application/json;q=0.7",
    "text/html; charset=utf-8, */*",
)
PROGRAMS = (
    "",
    "*/*",
    "application/json",
    "application/json, text/html",
    "application/json, text/plain, */*",
    "text/html;q=0.8, application/json",
    "text/html;q=0",
    "text/html;q=nan",
    "text/html;q=2",
    "text/html;q=",
    "text/*",
    "text/htmlx",
    ",,,;;;q==",
)


@pytest.mark.parametrize("accept", BROWSERS)
def test_a_browser_gets_a_page(accept):
    assert prefers_page(accept)


@pytest.mark.parametrize("accept", PROGRAMS)
def test_a_program_does_not(accept):
    assert not prefers_page(accept)


def test_of_a_list_without_end_only_the_beginning_counts():
    filler = ",".join(["a/b;q=0.1"] * RANGES_MAX)
    assert not prefers_page(f"{filler},text/html")
    assert prefers_page(f"text/html,{filler}" + ",a/b" * 100_000)


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip, deflate, br, zstd", True),
        ("GZIP;q=0.1", True),
        ("*", True),
        ("br, *;q=0.5", True),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("", False),
        ("br", False),
    ],
)
def test_gzip_goes_to_who_can_read_it(header, takes):
    assert takes_gzip(header) == takes
