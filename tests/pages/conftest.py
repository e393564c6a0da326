"""Fixtures of the pages: a browser that is on this machine."""

import pytest

from tests.bench.hostile_page import browser as installed
from tests.pages.browser import browsing


@pytest.fixture(scope="module")
def chromium():
    program = installed()
    if program is None:
        pytest.skip("there is no browser here")
    with browsing(program) as started:
        yield started
