"""Pages as they are rendered, without a server."""

import gzip
import re
from html.parser import HTMLParser

import jinja2
import msgspec
import pytest

from appliance.pages.assets import Assets
from appliance.pages.catalogue import TASKS, Wish, rows
from appliance.pages.navigation import PAGES
from appliance.pages.quickstart import snippets
from appliance.pages.templates import FOLDER, environment
from tests.unit.pages.test_catalogue import ALL, model

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
MODELS = 200


class Reader(HTMLParser):
    """Reads a page: its elements with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def catalogue(models, wish=None, url="http://127.0.0.1:8642"):
    wish = wish or Wish()
    return (
        environment(Assets())
        .get_template("catalogue.html")
        .render(
            nonce="abc",
            url=url,
            secure=url.startswith("https"),
            here="/",
            version="1",
            rows=rows(models, wish),
            total=len(models),
            wish=wish,
            tasks=TASKS,
            snippets=snippets(url, "a/embed", "a/rank"),
        )
    )


def test_every_model_is_there_with_its_price_its_limits_and_its_state():
    page = Reader(catalogue(ALL))
    for each in ALL:
        assert each.id in page.text
    for said in ("$0.008", "$0.004", "1M tokens", "22.6M weights", "256 tokens", "apache-2.0"):
        assert said in page.text
    for state in ("loaded", "cold", "not here", "not usable"):
        assert state in page.text


def test_a_name_from_outside_is_text_and_never_markup():
    hostile = model(description=HOSTILE, license=HOSTILE, aliases=(HOSTILE,), quantization=HOSTILE)
    broken = msgspec.structs.replace(hostile, id="b/c", available=False, reason=HOSTILE)
    page = Reader(catalogue([hostile, broken], Wish(words=HOSTILE[:50])))
    before = Reader(catalogue([model(), model("b/c")]))
    assert [tag for tag, _ in page.elements if tag in ("script", "img")] == ["script"]
    assert page.text.count(HOSTILE) >= 0
    page = Reader(catalogue([hostile, broken]))
    assert page.text.count(HOSTILE) >= 7
    assert [t for t, _ in page.elements if t == "script"] == [
        t for t, _ in before.elements if t == "script"
    ]


def test_two_hundred_models_are_rendered_and_the_page_stays_light():
    many = [
        model(f"owner-{number}/model-{number}", description="A sentence about it. " * 5)
        for number in range(MODELS)
    ]
    page = catalogue(many)
    assert page.count('<th scope="row"') == MODELS
    assets = Assets()
    files = sum(
        len(asset.content) for asset in assets if asset.name.startswith(("site.", "copy.", "icon."))
    )
    assert len(gzip.compress(page.encode(), 5)) + files < 150_000


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.html")))
def test_no_template_has_what_the_policy_forbids_or_names_another_host(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    tags = Reader(text).elements
    for tag, attributes in tags:
        assert not [each for each in attributes if each.startswith("on") or each == "style"], tag
        if tag in ("script", "link") and attributes.get("rel") != "icon":
            assert attributes["nonce"] == "{{ nonce }}"
        for each in ("src", "href", "action"):
            assert not re.match(r"(https?:)?//|javascript:|data:", attributes.get(each) or "")
    assert "|safe" not in text.replace(" ", "")
    assert "style>" not in text


def test_a_name_that_a_template_does_not_know_is_an_error():
    made = environment(Assets())
    with pytest.raises(jinja2.UndefinedError):
        made.from_string("{{ nothing }}").render()
    assert made.from_string("{{ text }}").render(text="<b>") == "&lt;b&gt;"


def test_each_page_links_to_all_and_says_which_it_is():
    page = Reader(catalogue(ALL))
    links = [attributes for tag, attributes in page.elements if tag == "a"]
    assert {each.path for each in PAGES} <= {each.get("href") for each in links}
    assert [each["href"] for each in links if each.get("aria-current") == "page"] == ["/"]
