"""The files that pages load: named by their content, and small."""

import gzip
import re

import pytest

from appliance.pages.assets import PATH, Assets


def test_a_name_changes_with_the_content_and_with_nothing_else(tmp_path):
    def url(content):
        (tmp_path / "a.css").write_text(content)
        return Assets(tmp_path).url("a.css")

    first = url("body {}")
    assert re.fullmatch(r"/static/a\.[0-9a-f]{12}\.css", first)
    assert url("p {}") != first
    assert url("body {}") == first


def test_a_file_is_found_by_its_whole_name_alone():
    assets = Assets()
    name = assets.url("site.css").removeprefix(PATH)
    found = assets.find(name)
    assert found is not None
    assert found.media_type == "text/css; charset=utf-8"
    assert gzip.decompress(found.packed) == found.content
    for other in ("site.css", name.upper(), name + "/", "../" + name, "", "LICENSE"):
        assert assets.find(other) is None
    with pytest.raises(KeyError):
        assets.url("nothing.css")


def test_what_is_not_for_browsers_is_not_served(tmp_path):
    (tmp_path / "a.css").write_text("")
    (tmp_path / "LICENSE").write_text("for people")
    (tmp_path / "a.py").write_text("")
    assert [asset.media_type for asset in Assets(tmp_path)] == ["text/css; charset=utf-8"]


def test_our_own_style_is_below_ten_kilobytes_and_names_no_other_host():
    assets = Assets()
    style = assets.find(assets.url("site.css").removeprefix(PATH))
    assert len(style.content) < 10_000
    for asset in assets:
        assert b"@import" not in asset.content
        assert not re.search(rb"url\(\s*['\"]?https?:", asset.content)
