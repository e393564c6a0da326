from dataclasses import replace

import pytest

from appliance.accounts import key as rules
from appliance.accounts.key import Key, KeyLimits, Retired
from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits

LIMITS = Limits(name_chars_max=20)
LIVE = Key(
    id="key_1",
    name="n",
    digest=b"d" * 32,
    hint="gr-AbCd…wxyz",
    unlimited=False,
    limits=KeyLimits(),
    created_us=0,
    expires_us=None,
    revoked_us=None,
)


@pytest.mark.parametrize(
    ("expires_us", "revoked_us", "now_us", "live"),
    [
        (None, None, 10**18, True),
        (100, None, 99, True),
        (100, None, 100, False),
        (100, None, 101, False),
        (None, 50, 60, False),
        (None, 50, 40, False),  # the clock stepped back: revoked stays revoked
        (100, 50, 60, False),
    ],
)
def test_a_key_lives_until_it_expires_or_is_revoked(expires_us, revoked_us, now_us, live):
    key = replace(LIVE, expires_us=expires_us, revoked_us=revoked_us)
    assert key.is_live(now_us) is live


def test_a_key_without_an_allow_list_may_call_every_model_and_one_with_it_only_those():
    assert LIVE.may_call("any/model")
    bound = replace(LIVE, limits=KeyLimits(models=("a/b",)))
    assert bound.may_call("a/b")
    assert not bound.may_call("a/c")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a"),
        ("  padded ", "padded"),
        ("x" * 20, "x" * 20),
        ("Zoë 东京 🔑", "Zoë 东京 🔑"),
        ("'; DROP TABLE x;--"[:20], "'; DROP TABLE x;--"),
    ],
)
def test_a_name_that_can_be_shown_is_taken_without_the_space_around_it(text, name):
    assert rules.checked_name(text, LIMITS) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "x" * 21,
        "a\nb",
        "a\tb",
        "a\x00b",
        "a\x1b[31mb",
        "a\x7fb",
        "a\u200bb",
        "a\u202eb",
        "a\ufeffb",
        "a\u2028b",
        "a\ud800b",
    ],
)
def test_a_name_that_could_steer_a_terminal_or_hide_is_refused(text):
    with pytest.raises(InvalidRequest) as refusal:
        rules.checked_name(text, LIMITS)
    assert refusal.value.param == "name"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("never", None),
        ("1m", 60),
        ("90m", 5_400),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("36500d", rules.EXPIRY_SECONDS_MAX),
    ],
)
def test_an_expiry_is_read_as_people_write_it(text, seconds):
    assert rules.checked_expiry_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0d",
        "-1d",
        "30",
        "d",
        "1.5h",
        "30 d",
        "30d ",
        "30D",
        "1y",
        "1e3m",
        "٣d",
        "36501d",
        "9999999w",
        "99999999m",
        "30d\n",
    ],
)
def test_an_expiry_that_says_something_else_is_refused(text):
    with pytest.raises(InvalidRequest) as refusal:
        rules.checked_expiry_s(text)
    assert refusal.value.param == "expires"


@pytest.mark.parametrize("value", [None, 1, rules.RATE_MAX])
def test_a_positive_rate_is_taken_and_none_stays_none(value):
    assert rules.checked_rate(value, param="rpm") == value


@pytest.mark.parametrize("value", [0, -1, rules.RATE_MAX + 1])
def test_a_rate_that_would_refuse_everything_or_nothing_is_refused(value):
    with pytest.raises(InvalidRequest) as refusal:
        rules.checked_rate(value, param="rpm")
    assert refusal.value.param == "rpm"


def test_an_allow_list_is_kept_in_order_and_an_empty_one_refused():
    assert rules.checked_models(None) is None
    assert rules.checked_models(["b", "a"]) == ("b", "a")
    with pytest.raises(InvalidRequest):
        rules.checked_models([])


def test_credits_are_exact_and_a_refusal_names_its_field():
    assert rules.checked_credit("0.008", param="credit") == 8_000_000_000
    with pytest.raises(InvalidRequest, match=r"daily_budget: .*finer") as refusal:
        rules.checked_credit("1e-13", param="daily_budget")
    assert refusal.value.param == "daily_budget"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1m", 60), ("24h", 86_400), ("30d", 2_592_000), ("4w", 2_419_200)],
)
def test_an_overlap_is_none_or_at_most_thirty_days(text, seconds):
    assert rules.checked_overlap_s(text) == seconds


@pytest.mark.parametrize("text", ["", "00", "0h", "-1h", "31d", "5w", "721h", "24", "never", "h"])
def test_an_overlap_that_says_something_else_is_refused(text):
    with pytest.raises(InvalidRequest) as refusal:
        rules.checked_overlap_s(text)
    assert refusal.value.param == "overlap"


@pytest.mark.parametrize(
    ("asked", "scopes"),
    [
        (None, ("infer", "usage")),
        (["usage", "infer"], ("infer", "usage")),
        (["infer"], ("infer",)),
        (["usage"], ("usage",)),
        (["admin", "usage", "admin"], ("usage", "admin")),
    ],
)
def test_scopes_are_taken_once_each_in_one_order(asked, scopes):
    assert rules.checked_scopes(asked) == scopes


@pytest.mark.parametrize("asked", [[], ["admin", "infer"], ["root"], ["infer", ""], ["INFER"]])
def test_scopes_that_are_unknown_or_exclude_each_other_are_refused(asked):
    with pytest.raises(InvalidRequest) as refusal:
        rules.checked_scopes(asked)
    assert refusal.value.param == "scopes"


def test_an_older_credential_opens_its_key_until_its_end_and_never_longer_than_the_key_lives():
    old = Retired(b"o" * 32, ends_us=100)
    key = replace(LIVE, retired=(old,), expires_us=200)
    assert [key.accepts(b"o" * 32, now) for now in (0, 99, 100, 150)] == [True, True, False, False]
    assert [key.accepts(b"d" * 32, now) for now in (0, 100, 199, 200)] == [True, True, True, False]
    assert not key.accepts(b"x" * 32, 0)
    assert not replace(key, revoked_us=1).accepts(b"o" * 32, 0)
    assert key.retired_at(99) == (old,)
    assert key.retired_at(100) == ()
