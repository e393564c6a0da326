"""Forms: what is wrong is said beside each field, all at once, and nothing typed is lost."""

import asyncio

import pytest
from textual.widgets import DataTable, Input, Label

from appliance.accounts.key import checked_expiry_s
from appliance.client.caller import AsyncCaller
from appliance.client.errors import ServerRefused
from appliance.client.verbs import LIST_KEYS
from appliance.core.errors import InvalidRequest
from tests.client.test_caller import answering, http
from tests.tui.test_stories import SIZES, drawn, play, settled
from tui.screens import checks
from tui.screens.dialogs import Secret
from tui.screens.form import Form
from tui.screens.lan import Lan, tls_of, write


def typed(app, **values):
    for field, value in values.items():
        app.screen.query_one(f"#field-{field}", Input).value = value


def values(app):
    return {each.id.removeprefix("field-"): each.value for each in app.screen.query(Input)}


def wrong(app):
    found = app.screen.query(".wrong.shown").results(Label)
    return {each.id.removeprefix("wrong").removeprefix("-"): str(each.render()) for each in found}


async def opened(app, pilot, tab, table, key):
    await pilot.press(tab)
    await settled(pilot, lambda: app.query_one(table, DataTable).row_count)
    await pilot.press(key)
    await settled(pilot, lambda: isinstance(app.screen, Form))


@pytest.mark.parametrize("size", SIZES)
def test_every_wrong_value_is_said_at_once_beside_its_field_and_everything_typed_stays(size):
    bad = {
        "name": "",
        "credit": "five",
        "daily_budget": "-1",
        "rpm": "0",
        "tpm": "1e3",
        "concurrency": "2.5",
        "expires": "tomorrow",
    }

    async def story(app, pilot, gateway):
        await opened(app, pilot, "3", "#keys", "m")
        typed(app, **bad, models="a, b")
        await pilot.press("enter")
        await settled(pilot, lambda: len(wrong(app)) == len(bad))
        assert set(wrong(app)) == set(bad)
        assert wrong(app)["rpm"] == "a whole number like 60, not 0; empty: any"
        assert wrong(app)["credit"].endswith("not five; or: unlimited")
        assert values(app) == {**bad, "models": "a, b"}
        assert app.focused.id == "field-name"
        assert not gateway.sent
        seen = drawn(app)
        for said in wrong(app).values():
            assert said in seen, seen
        typed(app, name="carol")  # what is mended is no longer said to be wrong
        await settled(pilot, lambda: "name" not in wrong(app))
        typed(app, credit="2", daily_budget="", rpm="30", tpm="", concurrency="1", expires="30d")
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, Secret))
        assert gateway.sent[0][2]["expires"] == "30d"

    play(story, size=size)


def test_what_the_server_refuses_is_said_beside_the_field_that_it_names():
    async def story(app, pilot, gateway):
        gateway.refusal, gateway.refusal_param = "There is no model 'a'.", "model"
        await opened(app, pilot, "3", "#keys", "m")
        typed(app, name="carol", models="a")
        await pilot.press("enter")
        await settled(pilot, lambda: wrong(app) == {"models": "There is no model 'a'."})
        gateway.refusal, gateway.refusal_param = "this store holds 10 keys at most", None
        await pilot.press("enter")
        await settled(pilot, lambda: wrong(app) == {"": "this store holds 10 keys at most"})
        gateway.lost = True
        await pilot.press("enter")
        await settled(pilot, lambda: "does not answer" in wrong(app)[""])
        assert values(app)["name"] == "carol"
        gateway.lost, gateway.refusal = False, None
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, Secret))

    play(story)


def test_a_top_up_of_nothing_is_said_and_esc_leaves_everything_as_it_is():
    async def story(app, pilot, gateway):
        await opened(app, pilot, "3", "#keys", "t")
        typed(app, credit="0")
        await pilot.press("enter")
        await settled(pilot, lambda: wrong(app) == {"credit": "an amount above 0"})
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        assert not gateway.sent

    play(story)


def test_a_price_that_was_set_is_not_set_again_when_only_the_names_were_refused():
    async def story(app, pilot, gateway):
        gateway.refusal, gateway.refusal_param = "aliases: 'bge' is not free", "aliases"
        gateway.refused_path = "/alias"
        await opened(app, pilot, "2", "#models", "e")
        typed(app, price="0.5", aliases="bge")
        await pilot.press("enter")
        await settled(pilot, lambda: wrong(app) == {"aliases": "aliases: 'bge' is not free"})
        typed(app, aliases="mini")
        gateway.refusal = None
        await pilot.press("enter")
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        assert [path for _, path, _ in gateway.sent] == ["/models/price", "/models/alias"]

    play(story)


def test_a_repository_that_is_none_or_is_refused_stays_in_its_form():
    async def story(app, pilot, gateway):
        await opened(app, pilot, "2", "#models", "a")
        typed(app, repo="nothing", replace="perhaps")
        await pilot.press("enter")
        await settled(pilot, lambda: set(wrong(app)) == {"repo", "replace"})
        gateway.refusal, gateway.refusal_param = "the hub has no such repository", "repo"
        typed(app, repo="a/b", replace="")
        await pilot.press("enter")
        await settled(pilot, lambda: wrong(app) == {"repo": "the hub has no such repository"})
        assert values(app)["repo"] == "a/b"

    play(story)


def test_the_network_form_begins_with_what_is_in_use_and_keeps_a_file_that_is_not_there(tmp_path):
    async def story(app, pilot, gateway):
        gateway.url = "https://0.0.0.0:18799"
        write(tmp_path, host="0.0.0.0", port=18799, cert="/c.pem", key="/k.pem")
        app.query_one(Lan)._data_dir = tmp_path
        await pilot.press("4")
        await pilot.press("o")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        used = {"host": "0.0.0.0", "port": "18799", "tls": "/c.pem,/k.pem"}
        assert values(app) == used
        typed(app, port="99999")
        await pilot.press("enter")
        await settled(pilot, lambda: wrong(app) == {"port": "a port is 1 to 65,535, not 99999"})
        typed(app, port="18799")
        await pilot.press("enter")
        await settled(pilot, lambda: "there is no file" in wrong(app).get("tls", ""))
        assert values(app) == used

    play(story)


def test_a_refusal_of_the_server_carries_the_field_that_it_names():
    body = b'{"error": {"message": "m", "param": "expires"}, "detail": "expires is odd"}'

    async def story():
        with answering(http(400, body)) as url:
            caller = AsyncCaller(url, "token")
            with pytest.raises(ServerRefused) as refused:
                await caller.do(LIST_KEYS)
            await caller.close()
        assert (refused.value.param, refused.value.message) == ("expires", "expires is odd")

    asyncio.run(story())


@pytest.mark.parametrize("text", ["90m", "12h", "30d", "2w", "never", "0d", "1y", "d", "1.5h", "5"])
def test_a_time_is_wrong_in_the_form_if_the_server_refuses_it(text):
    try:
        checked_expiry_s(text)
        is_taken = True
    except InvalidRequest:
        is_taken = False
    assert (checks.optional_time(text) == "") == is_taken


def test_a_data_directory_without_a_certificate_names_none(tmp_path):
    assert tls_of(tmp_path) == ""
    (tmp_path / "config.toml").write_text("port = 1\n")
    assert tls_of(tmp_path) == ""
