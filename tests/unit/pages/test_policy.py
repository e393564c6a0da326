"""What a browser may do with our pages."""

from appliance.pages.policy import file_headers, new_nonce, page_headers


def rules(headers):
    listed = headers["content-security-policy"].split("; ")
    return {name: rest for name, _, rest in (rule.partition(" ") for rule in listed)}


def test_nothing_runs_that_the_page_did_not_mark_and_nothing_comes_from_elsewhere():
    for writes_html in (False, True):
        found = rules(page_headers("abc", writes_html=writes_html))
        assert found["default-src"] == "'none'"
        assert found["script-src"] == found["style-src"] == "'nonce-abc'"
        assert found["connect-src"] == "'self'"
        assert found["base-uri"] == found["frame-ancestors"] == "'none'"
        text = " ".join(found.values())
        for loose in ("unsafe", "http:", "https:", "*", "blob:"):
            assert loose not in text


def test_only_a_page_that_must_may_write_html_and_show_pictures_of_its_own():
    strict, loose = rules(page_headers("abc")), rules(page_headers("abc", writes_html=True))
    assert strict["require-trusted-types-for"] == "'script'"
    assert strict["trusted-types"] == "'none'"
    assert strict["img-src"] == "'self'"
    assert "require-trusted-types-for" not in loose
    assert loose["img-src"] == "'self' data:"


def test_pages_are_kept_by_nobody_and_files_for_ever():
    assert page_headers("abc")["cache-control"] == "no-store"
    assert file_headers()["cache-control"] == "public, max-age=31536000, immutable"
    for headers in (page_headers("abc"), file_headers()):
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert rules(headers)["frame-ancestors"] == "'none'"


def test_a_nonce_is_new_each_time_and_nobodys_guess():
    made = {new_nonce() for _ in range(100)}
    assert len(made) == 100
    assert min(map(len, made)) >= 22
