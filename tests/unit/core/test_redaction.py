import pytest

from appliance.accounts import credential
from appliance.core.redaction import conceal, redacted


@pytest.mark.parametrize(
    "text",
    ["{}", "GET /account?key={}&x=1", "Bearer {}", "'{}'", "{},{}", "https://x/{}/y", "x{}"],
)
def test_no_key_survives_wherever_it_stands(text):
    key = credential.mint()
    found = redacted(text.format(key, key))
    assert key not in found
    assert found == text.format("gr-[redacted]", "gr-[redacted]")


@pytest.mark.parametrize("text", ["", "gr-short", "gr-" + "a" * 39, "a gr- b", "gr-AbCd…wxyz"])
def test_what_is_no_key_stays(text):
    assert redacted(text) == text


def test_a_named_secret_is_replaced_and_a_short_one_is_none():
    conceal("a-token-of-this-test-alone")
    conceal("the")
    assert redacted("the a-token-of-this-test-alone!") == "the [redacted]!"
