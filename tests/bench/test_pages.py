"""What the pages cost, in little: every one is measured, and none is heavy."""

import asyncio

import pytest

from appliance.pages.navigation import PAGES
from tests.appliance import bench
from tests.bench import pages


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "data"
    return asyncio.run(pages.measure(folder, models=200, rounds=2))


def test_each_page_is_measured_beside_the_models_as_json(rows):
    assert [row.path for row in rows] == ["/v1/models", *(each.path for each in PAGES)]
    assert all(len(row.ms) == 2 and min(row.ms) > 0 for row in rows)
    said = pages.table(rows).splitlines()
    assert len(said) == len(rows) + 1
    assert said[1].split()[3] == "1.00"


def test_no_page_of_ours_weighs_much_with_two_hundred_models(rows):
    for row in rows[1:]:
        assert row.bytes_sent > 0
        # The reference is its library: half a megabyte, once for ever.
        assert row.bytes_sent + row.bytes_loaded < (600_000 if row.path == "/docs" else 150_000)


def test_two_hundred_models_are_on_the_page(tmp_path):
    pages.write_catalogue(tmp_path / "data", 200)

    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            shown = (await on.client.get("/", headers=pages.BROWSER)).text
            assert shown.count('class="id">team-') == 200
            assert len(shown) < 500_000

    asyncio.run(story())
