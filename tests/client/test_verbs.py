"""The table of verbs is the operator's API: no route without a verb, no verb without a route."""

import re

import pytest

from appliance.api.routes.operator import operator_router
from appliance.cli.local import ACTS
from appliance.client import verbs
from appliance.client.verbs import Verb, target

APART = {("GET", "/admin/v1/events"), ("GET", "/admin/v1/openapi.json")}
"""A stream, which never ends, and the description of all the others."""
ONLY_SERVED = {verbs.STATS, verbs.HISTORY, verbs.LOG}
"""About a running server: without one there is nothing to tell."""
VERBS = {name: each for name, each in vars(verbs).items() if isinstance(each, Verb)}


def routes():
    """(method, path) of every registered route of the operator's API, parameters as `{}`."""
    found = set()
    for route in operator_router(guard=None).routes:
        path = re.sub(r"\{[^}]*\}", "{}", route.path).rstrip("/")
        if path.startswith(verbs.PREFIX):
            found |= {(method, path) for method in route.methods - {"OPTIONS"}}
    return found


def test_every_verb_is_a_route_and_every_route_is_a_verb():
    table = [(verb.method, verbs.PREFIX + verb.path) for verb in VERBS.values()]
    assert len(table) == len(set(table))
    assert set(table) | APART == routes()


def test_every_verb_is_done_without_a_server_too_but_those_about_one():
    assert set(VERBS.values()) - set(ACTS) == ONLY_SERVED


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_changes_something_is_no_get_and_only_such_a_one_takes_an_order(name):
    verb = VERBS[name]
    assert verb.method in ("GET", "POST", "DELETE")
    assert verb.order is None or verb.method == "POST"
    # A trial of long sequences is somebody's wish, and is cancelled by who hangs up.
    assert 0 < verb.deadline_s <= (verbs.TRY_S if verb is verbs.TRY_MODEL else verbs.LONG_S)


@pytest.mark.parametrize(
    ("verb", "names", "path"),
    [
        (verbs.LIST_KEYS, (), "/admin/v1/keys"),
        (verbs.SHOW_MODEL, ("o/a b?#",), "/admin/v1/models/o%2Fa%20b%3F%23"),
        (verbs.SHOW_KEY, ("",), "/admin/v1/keys/-"),
        (verbs.SHOW_KEY, ("../models",), "/admin/v1/keys/..%2Fmodels"),
        (
            verbs.USAGE,
            ("day", "7d", "a&b=c", "o/m"),
            "/admin/v1/usage?by=day&since=7d&key=a%26b%3Dc&model=o%2Fm",
        ),
    ],
)
def test_names_cannot_make_another_request_of_it(verb, names, path):
    assert target(verb, names) == path
