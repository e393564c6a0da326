"""The operator's page in a real browser: keys, models and use, with a server behind it."""

import json

import pytest
from playwright.sync_api import expect

from tests.pages.browser import SIZES, THEMES, visiting
from tests.server import EMBED


@pytest.fixture(scope="module")
def token(server):
    return (server.data_dir / "admin.token").read_text().strip()


def opened(visit, token):
    """Give the token, and wait for what the server does now."""
    visit.page.fill("#token", token)
    visit.page.click("#admin button")
    visit.page.wait_for_selector("#now dd")
    return visit.page


def listed(server, name):
    """The key of this name, as the operator's API has it."""
    with server.admin() as client:
        keys = client.get("/keys").json()["data"]
    [found] = [key for key in keys if key["name"] == name]
    return found


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_the_page_breaks_no_rule_and_can_be_read_by_all(chromium, server, token, size, theme):
    with visiting(chromium, server.url + "/admin", size=size, theme=theme) as visit:
        page = opened(visit, token)
        assert visit.axe() == []
        page.click("[data-opens=mint]")
        assert visit.axe() == []
        page.keyboard.press("Escape")
        assert not visit.is_wide()
        assert visit.found() == []


def test_a_key_is_minted_limited_topped_up_renewed_and_revoked(chromium, server, token):
    name = "Edsger"
    with visiting(chromium, server.url + "/admin") as visit:
        page = opened(visit, token)
        page.click("[data-opens=mint]")
        page.fill("#mint-name", name)
        page.fill("#mint-credit", "0.5")
        page.fill("#mint-rpm", "60")
        page.keyboard.press("Enter")
        page.wait_for_selector("#secret[open]")
        first = page.inner_text("#secret-text")
        with server.client(first) as client:
            body = {"model": EMBED, "input": "a"}
            assert client.post("/v1/embeddings", json=body).status_code == 200
        page.click("[data-closes=secret]")
        expect(page.locator("#secret-text")).to_have_text("")
        assert (listed(server, name)["rpm"], listed(server, name)["daily_budget"]) == (60, None)

        page.click(f"[aria-label='Limits {name}']")
        assert page.input_value("#limit-rpm") == "60"
        page.fill("#limit-rpm", "")
        page.fill("#limit-budget", "0.25")
        page.click("#limit-form button[type=submit]")
        expect(page.locator("#limit")).to_be_hidden()
        assert (listed(server, name)["rpm"], listed(server, name)["daily_budget"]) == (None, 0.25)

        page.click(f"[aria-label='Top up {name}']")
        page.fill("#topup-credit", "2")
        page.click("#topup-form button[type=submit]")
        expect(page.locator("#topup")).to_be_hidden()
        assert 2.49 < listed(server, name)["credit"] < 2.5

        page.click(f"[aria-label='New credential {name}']")
        page.select_option("#overlap", "0")
        page.click("#rotate-form button[type=submit]")
        page.wait_for_selector("#secret[open]")
        assert page.inner_text("#secret-text") != first
        with server.client(first) as client:
            assert client.get("/account").status_code == 401
        page.click("[data-closes=secret]")

        page.click(f"[aria-label='Revoke {name}']")
        page.click("[data-closes=revoke]")
        assert listed(server, name)["revoked"] is None
        page.click(f"[aria-label='Revoke {name}']")
        page.click("#revoke-form button[type=submit]")
        expect(page.locator("#revoke")).to_be_hidden()
        assert listed(server, name)["revoked"]
        expect(page.locator("#keys")).not_to_contain_text(name)
        page.check("#revoked")
        expect(page.locator("#keys")).to_contain_text(name)
        assert visit.found() == []


def test_an_order_that_is_sent_again_adds_its_credit_once(chromium, server, token):
    server.mint("Twice", credit="1")
    with visiting(chromium, server.url + "/admin") as visit:
        page = opened(visit, token)
        lost = []

        def lose(route):
            """Let the first order reach the server, and its answer be lost."""
            if not lost:
                lost.append(route.fetch())
                route.abort()
            else:
                route.continue_()

        page.route("**/topup", lose)
        page.click("[aria-label='Top up Twice']")
        page.fill("#topup-credit", "3")
        page.click("#topup-form button[type=submit]")
        expect(page.locator("#topup-form-status")).to_contain_text("cannot be reached")
        page.click("#topup-form button[type=submit]")
        expect(page.locator("#topup")).to_be_hidden()
        assert listed(server, "Twice")["credit"] == 4


def test_what_is_wrong_keeps_the_form_and_says_why(chromium, server, token):
    with visiting(chromium, server.url + "/admin") as visit:
        page = opened(visit, token)
        page.click("[data-opens=mint]")
        page.fill("#mint-name", "Late")
        page.fill("#mint-expires", "soon")
        page.keyboard.press("Enter")
        expect(page.locator("#mint-form-status")).to_contain_text("expires")
        assert page.input_value("#mint-name") == "Late"
        page.fill("#mint-credit", "-1")
        page.click("#mint-form button[type=submit]")
        assert page.evaluate("!document.querySelector('#mint-credit').validity.valid")


def test_a_wrong_token_opens_nothing(chromium, server):
    with visiting(chromium, server.url + "/admin") as visit:
        visit.page.fill("#token", "gr-" + "x" * 40)
        visit.page.click("#admin button")
        expect(visit.page.locator("#admin-status")).to_contain_text("invalid_api_key")
        assert visit.page.is_hidden("#shown")


def test_models_are_unloaded_and_loaded(chromium, server, token):
    with visiting(chromium, server.url + "/admin") as visit:
        page = opened(visit, token)
        page.click(f"[aria-label='Unload {EMBED}']")
        page.click(f"[aria-label='Load {EMBED}']", timeout=60_000)
        page.wait_for_selector(f"[aria-label='Unload {EMBED}']", timeout=60_000)
        assert page.locator("[aria-label^=Pull]").count() == 0
        page.check("#absent")
        page.wait_for_selector("[aria-label^=Pull]")
        assert visit.found() == []


def test_what_the_server_does_is_shown_as_it_happens(chromium, server, token):
    key = str(server.mint("busy", credit="1")["key"])
    with visiting(chromium, server.url + "/admin") as visit, server.client(key) as client:
        page = opened(visit, token)
        for number in range(20):
            client.post("/v1/embeddings", json={"model": EMBED, "input": f"number {number}"})
        page.wait_for_selector("#history .column:not([height='0'])")
        page.select_option("#by", "key")
        page.click("#use button[type=submit]")
        expect(page.locator("#rows")).to_contain_text("busy (key_")
        with page.expect_download() as kept:
            page.click("#table")
        assert ",busy,20,80,0," in kept.value.path().read_text()


def test_the_token_is_in_the_tabs_memory_alone(chromium, server, token):
    with visiting(chromium, server.url + "/admin") as visit:
        page = opened(visit, token)
        stored = page.evaluate(
            "async () => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie,"
            " location.href, await indexedDB.databases(), await caches.keys()])"
        )
        assert json.loads(stored) == [{}, {}, "", server.url + "/admin", [], []]
        assert not any(token in url for url in visit.asked)
        page.reload()
        assert page.input_value("#token") == ""
