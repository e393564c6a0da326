"""Every page in a real browser: on a phone and a desk, light and dark, by keyboard, without script."""

import json
from decimal import Decimal

import numpy as np
import pytest
from playwright.sync_api import expect

from appliance.pages.navigation import ADMIN, PAGES
from tests.pages.browser import SIZES, THEMES, visiting
from tests.server import EMBED

PATHS = tuple(each.path for each in (*PAGES, ADMIN))
STORED = """async () => JSON.stringify([
  ...[localStorage, sessionStorage].map((kept) => Array.from(kept, (_, at) => [kept.key(at), kept.getItem(kept.key(at))])),
  document.cookie, location.href, history.length,
  await indexedDB.databases(), await caches.keys()])"""


@pytest.fixture(scope="module")
def key(server):
    return str(server.mint("pages", credit="1")["key"])


def compare(visit, key):
    visit.page.fill("#key", key)
    visit.page.click("#embed button")
    visit.page.wait_for_selector("#map rect")


def rank(visit, key):
    visit.page.fill("#key", key)
    visit.page.click("#rerank button")
    visit.page.wait_for_selector("#ranking li")


def try_it(visit, key):
    """Give the key and call the first endpoint of the reference."""
    page = visit.page
    page.click(".btn.authorize")
    page.wait_for_selector(".auth-container input[type=password]")
    page.fill(".auth-container input", key)
    page.click(".modal-ux .btn.authorize")
    page.click(".modal-ux .btn-done")
    page.click(".opblock-summary-control >> nth=0")
    page.click(".btn.execute")
    page.wait_for_selector(".live-responses-table .response")
    page.wait_for_function(
        "[...document.querySelectorAll('pre')].every((box) => box.tabIndex === 0)"
    )


def show_account(visit, key):
    visit.page.fill("#key", key)
    visit.page.click("#account button")
    visit.page.wait_for_selector("#shown:not([hidden])")


def use(visit, path, key):
    """Do what the page is for."""
    if path == "/playground":
        compare(visit, key)
        visit.page.click("summary")
        rank(visit, key)
    elif path == "/docs":
        try_it(visit, key)
    elif path == "/account":
        show_account(visit, key)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", PATHS)
def test_a_page_breaks_no_rule_asks_nobody_else_and_can_be_read_by_all(
    chromium, server, key, path, size, theme
):
    with visiting(chromium, server.url + path, size=size, theme=theme) as visit:
        use(visit, path, key)
        assert visit.page.title().endswith("- gigarouter")
        assert visit.axe() == []
        assert not visit.is_wide()
        assert len(visit.asked) >= 3
        assert visit.found() == []


@pytest.mark.parametrize("path", PATHS)
def test_the_two_themes_are_two(chromium, server, path):
    grounds = []
    for theme in THEMES:
        with visiting(chromium, server.url + path, theme=theme) as visit:
            ground = "getComputedStyle(document.body).backgroundColor"
            grounds.append(visit.page.evaluate(f"{ground}.match(/\\d+/g).map(Number)"))
    assert min(grounds[0]) > 200
    assert max(grounds[1]) < 60


@pytest.mark.parametrize("path", PATHS)
def test_nothing_moves_for_who_asked_for_that(chromium, server, path):
    moving = """() => [...document.querySelectorAll("*")].filter((each) => {
      const style = getComputedStyle(each);
      return style.animationName !== "none" || parseFloat(style.transitionDuration) > 0;
    }).map((each) => each.outerHTML.slice(0, 100))"""
    found = []
    for wish in ("reduce", "no-preference"):
        with visiting(chromium, server.url + path, reduced_motion=wish) as visit:
            if path == "/docs":
                visit.page.wait_for_selector(".opblock")
            found.append(visit.page.evaluate(moving))
    assert found[0] == []
    assert found[1] != []


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_read_without_scrolling_sideways_on_the_smallest_screens(chromium, server, path):
    """320 pixels, or 1,280 at four times their size (WCAG 2.2, 1.4.10)."""
    with visiting(chromium, server.url + path) as visit:
        visit.page.set_viewport_size({"width": 320, "height": 256})
        if path == "/docs":
            visit.page.click(".opblock-summary-control >> nth=0")
            visit.page.wait_for_selector(".btn.execute")
        assert not visit.is_wide()


def test_what_is_wrong_would_be_found(chromium, server):
    """The watch itself: breaches, other hosts, errors, and faults of accessibility."""
    with visiting(chromium, server.url) as visit:
        visit.page.evaluate("document.body.setAttribute('style', 'color: red')")
        assert "style-src-attr" in " ".join(visit.found())
        visit.page.evaluate("fetch('http://other.invalid/').catch(() => 0)")
        assert "connect-src" in " ".join(visit.found())
        visit.page.evaluate("document.body.append(document.createElement('select'))")
        assert "select-name" in " ".join(visit.axe())
    with visiting(chromium, server.url) as visit:
        assert (
            visit.page.evaluate(
                "(() => { try { document.body.innerHTML = '<b>'; return 1; } catch { return 0; } })()"
            )
            == 0
        )
    with visiting(chromium, server.url, bypass_csp=True) as visit:
        visit.page.evaluate("fetch('http://other.invalid/').catch(() => 0)")
        assert visit.foreign() == ["http://other.invalid/"]


# -- keyboard -----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_the_examples_are_chosen_by_keyboard_with_and_without_script(chromium, server, script):
    with visiting(chromium, server.url, java_script_enabled=script) as visit:
        page = visit.page
        page.keyboard.press("Tab")
        assert page.locator(".skip:focus").is_visible()
        page.keyboard.press("Enter")
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.locator("input[type=radio]:focus").count():
                break
        shown = []
        for _ in range(7):
            [text] = [each for each in page.locator(".panel code").all() if each.is_visible()]
            shown.append(text.inner_text().split()[0])
            page.keyboard.press("ArrowRight")
        assert shown == ["KEY=gr-…", "from", "import", "import", "from", "Embedding", "models:"]


def test_focus_is_seen_wherever_tab_goes(chromium, server):
    for path in PATHS:
        with visiting(chromium, server.url + path) as visit:
            if path == "/docs":
                visit.page.wait_for_selector(".opblock")
            unseen = []
            for _ in range(25):
                visit.page.keyboard.press("Tab")
                if visit.page.evaluate("document.activeElement === document.body"):
                    break
                if not visit.focus_is_seen():
                    unseen.append(
                        visit.page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
                    )
            assert unseen == [], path


def test_a_search_is_made_by_keyboard(chromium, server):
    with visiting(chromium, server.url) as visit:
        visit.tab_to("#words")
        visit.page.keyboard.type("starter-rerank")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_url("**q=starter-rerank*")
        assert visit.page.locator(".models .id").all_inner_texts() == ["gigarouter/starter-rerank"]
        assert visit.page.locator("#words").input_value() == "starter-rerank"
        assert visit.found() == []


def test_the_playground_works_by_keyboard_alone(chromium, server, key):
    with visiting(chromium, server.url + "/playground") as visit:
        visit.tab_to("#key")
        visit.page.keyboard.type(key)
        visit.tab_to("#embed button")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#map rect")
        visit.tab_to("#query")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#ranking li")
        assert visit.found() == []


def test_the_reference_works_by_keyboard_alone(chromium, server, key):
    with visiting(chromium, server.url + "/docs") as visit:
        page = visit.page
        page.wait_for_selector(".opblock")
        visit.tab_to(".btn.authorize")
        page.keyboard.press("Enter")
        expect(page.locator(".auth-container input").first).to_be_focused()
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        visit.tab_to(".btn-done")
        page.keyboard.press("Enter")
        expect(page.locator(".btn.authorize")).to_be_focused()
        visit.tab_to(".opblock-summary-control")
        page.keyboard.press("Enter")
        page.wait_for_selector(".btn.execute")
        visit.tab_to(".btn.execute")
        page.keyboard.press("Enter")
        page.wait_for_selector(".live-responses-table .response")
        assert (
            page.locator(".live-responses-table .response-col_status")
            .nth(1)
            .inner_text()
            .startswith("200")
        )
        assert visit.found() == []


# -- what the pages do --------------------------------------------------------------------------


def test_texts_are_compared_and_the_bill_is_the_servers(chromium, server):
    minted = server.mint("bill", credit="1")
    with visiting(chromium, server.url + "/playground") as visit:
        with visit.page.expect_response("**/v1/embeddings") as answered:
            compare(visit, str(minted["key"]))
        answer = answered.value
        said = visit.page.inner_text("#embed-status")
        headers = answer.headers
        assert (
            f"{answer.json()['usage']['total_tokens']} tokens, ${headers['x-cost']}, ${headers['x-balance']} left"
            in said
        )
        cells = visit.page.locator("#map rect title").all_text_contents()
        assert len(cells) == 36
        assert cells[0] == "1 and 1: 1.000"
        numbers = dict(cell.split(": ") for cell in cells)
        assert float(numbers["1 and 2"]) > 0.6
        assert float(numbers["1 and 5"]) < 0.3
        assert visit.page.locator("#plane circle").count() == 6
        rank(visit, str(minted["key"]))
        assert "password" in visit.page.locator("#ranking li").first.inner_text()
        with server.client(str(minted["key"])) as client:
            balance = client.get("/account").json()["balance"]
        assert f"${balance} left" in visit.page.inner_text("#rerank-status")


@pytest.mark.parametrize(
    ("texts", "secret", "said"),
    [
        ("one", None, "2 to 20 texts"),
        ("\n".join("abcdefghijklmnopqrstu"), None, "2 to 20 texts"),
        ("one\ntwo", "", "Paste a key first"),
        ("one\ntwo", "gr-wrong", "(invalid_api_key)"),
        ("one\ntwo", "gr-…", "letters, digits"),
    ],
)
def test_what_cannot_be_compared_says_why(chromium, server, key, texts, secret, said):
    with visiting(chromium, server.url + "/playground") as visit:
        visit.page.fill("#key", key if secret is None else secret)
        visit.page.fill("#texts", texts)
        visit.page.click("#embed button")
        visit.page.wait_for_selector("#embed-status.bad")
        assert said in visit.page.inner_text("#embed-status")
        assert visit.page.locator("#likeness").is_hidden()
        assert visit.page.locator("#embed button").is_enabled()


@pytest.mark.parametrize("count", [2, 3, 20])
def test_the_projection_is_the_principal_components(chromium, server, count):
    vectors = np.random.default_rng(count).normal(size=(count, 30)) * np.linspace(3, 0.1, 30)
    with visiting(chromium, server.url + "/playground") as visit:
        found = visit.page.evaluate("vectors => project(vectors)", vectors.tolist())
        alike = visit.page.evaluate("project([[1, 2], [1, 2], [1, 2]])")
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (left * sizes)[:, :2]
    points = np.array(found["points"])
    for axis in range(min(2, count - 1)):
        sign = np.sign(points[0, axis] * expected[0, axis])
        assert np.abs(points[:, axis] * sign - expected[:, axis]).max() < 1e-3
    assert found["share"] == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum(), abs=1e-6)
    assert np.array(alike["points"]).tolist() == [[0, 0]] * 3


def test_the_projection_of_equal_spreads_ends(chromium, server):
    square = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    with visiting(chromium, server.url + "/playground") as visit:
        found = visit.page.evaluate("vectors => project(vectors)", square)
    assert found["share"] == pytest.approx(1)
    between = np.array(found["points"])
    assert np.linalg.norm(between[0] - between[3]) == pytest.approx(np.sqrt(8), rel=1e-3)


def test_the_reference_calls_this_server_and_shows_its_answer(chromium, server, key):
    with visiting(chromium, server.url + "/docs") as visit:
        with visit.page.expect_response("**/v1/embeddings") as answered:
            try_it(visit, key)
        assert answered.value.status == 200
        assert answered.value.json()["model"] == EMBED
        assert "Ollama" in visit.page.inner_text("#reference")


def test_a_link_cannot_have_the_reference_show_another_document(chromium, server):
    link = "/docs?url=http://other.invalid/openapi.json&configUrl=http://other.invalid/a.json"
    with visiting(chromium, server.url + link) as visit:
        visit.page.wait_for_selector(".opblock")
        assert visit.found() == []


@pytest.mark.parametrize("path", ["/playground", "/docs", "/account"])
def test_a_key_is_in_the_tabs_memory_alone(chromium, server, key, path):
    with visiting(chromium, server.url + path) as visit:
        use(visit, path, key)
        assert key not in visit.page.inner_text("body")
        stored = visit.page.evaluate(STORED)
        assert key not in stored
        kept = json.loads(stored)
        assert kept[0] == kept[1] == []
        assert kept[2] == ""
        assert not any(key in url for url in visit.asked)
        visit.page.reload()
        if path != "/docs":
            assert visit.page.input_value("#key") == ""
        assert key not in visit.page.content()
    assert key not in server.log.read_text()


def test_no_frame_of_another_page_shows_one_of_ours(chromium, server):
    with visiting(chromium, server.url, bypass_csp=True) as visit:
        for path in PATHS:
            with visit.page.expect_console_message(lambda said: "frame-ancestors" in said.text):
                visit.page.set_content(f"<iframe src='{server.url}{path}'></iframe>")
            [frame] = visit.page.frames[1:]
            assert "gigarouter" not in frame.evaluate(
                "document.body ? document.body.innerText : ''"
            )


def billed(server, key, calls):
    """Make calls, and return what all of them cost."""
    with server.client(key) as client:
        answers = [
            client.post("/v1/embeddings", json={"model": EMBED, "input": f"number {n}"})
            for n in range(calls)
        ]
    return sum(Decimal(answer.headers["x-cost"]) for answer in answers)


def test_an_account_shows_what_was_used_call_by_call_and_as_a_table(chromium, server):
    key = str(server.mint("holder", credit="2")["key"])
    cost = billed(server, key, 23)
    with visiting(chromium, server.url + "/account") as visit:
        page = visit.page
        show_account(visit, key)
        assert f"${cost:f} in all, 23 calls" in page.inner_text("#days-note")
        assert f"${2 - cost:f}" in page.inner_text("#facts")
        assert page.locator("#days .column").count() == 30
        shares = page.locator("#by-model meter, #by-tier meter")
        assert shares.evaluate_all("all => all.map((each) => each.value)") == [1, 1]
        assert server.url in page.inner_text("#code-curl")
        assert page.locator("#calls tr").count() == 20
        page.click("#more")
        expect(page.locator("#calls tr")).to_have_count(23)
        assert page.is_hidden("#more")
        page.select_option("#since", "7d")
        page.click("#use button[type=submit]")
        expect(page.locator("#days .column")).to_have_count(7)
        with page.expect_download() as kept:
            page.click("#table")
        assert kept.value.suggested_filename == "usage.csv"
        assert f",23,{23 * 4},0,{cost:f}," in kept.value.path().read_text()
        assert visit.found() == []


def test_a_holder_makes_a_new_key_by_keyboard_and_the_old_one_ends(chromium, server):
    key = str(server.mint("holder", credit="2")["key"])
    with visiting(chromium, server.url + "/account") as visit:
        page = visit.page
        show_account(visit, key)
        page.select_option("#overlap", "0")
        page.focus("#overlap")
        visit.tab_to("#sure")
        page.keyboard.press("Space")
        visit.tab_to("#rotate button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#new-key:not([hidden])")
        new = page.inner_text("#new-key-text")
        assert new != key
        assert page.input_value("#key") == new
        show_account(visit, new)
        assert page.is_hidden("#new-key")
        page.fill("#key", key)
        page.click("#account button")
        page.wait_for_selector("#account-status.bad")
        assert "invalid_api_key" in page.inner_text("#account-status")
        assert page.is_hidden("#shown")


def test_a_new_key_is_not_made_by_mistake(chromium, server):
    key = str(server.mint("holder", credit="2")["key"])
    with visiting(chromium, server.url + "/account") as visit:
        show_account(visit, key)
        visit.page.click("#rotate button")
        visit.page.wait_for_timeout(300)
        assert visit.page.is_hidden("#new-key")
        assert visit.page.input_value("#key") == key
