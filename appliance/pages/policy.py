"""Policy: what a browser may do with a page of ours.

Owns the security headers of pages and of their files. Nothing is loaded from another host, no
script or style runs that this server did not mark with the page's own nonce, and no other page may
show one of ours in a frame.
"""

import secrets

NONCE_BYTES = 16

_EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def new_nonce() -> str:
    """Return a text that nobody can guess, for one answer."""
    return secrets.token_urlsafe(NONCE_BYTES)


def page_headers(nonce: str, *, writes_html: bool = False) -> dict[str, str]:
    """Return the headers of a page.

    `writes_html`: its scripts make elements from text of their own, as a bundled library may; all
    other pages have the browser refuse that (Trusted Types).
    """
    rules = [
        "default-src 'none'",
        f"script-src 'nonce-{nonce}'",
        f"style-src 'nonce-{nonce}'",
        "img-src 'self' data:" if writes_html else "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    if not writes_html:
        rules += ["require-trusted-types-for 'script'", "trusted-types 'none'"]
    return {
        **_EVERYWHERE,
        "content-security-policy": "; ".join(rules),
        "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
        "cache-control": "no-store",  # a nonce is for one answer
    }


def file_headers() -> dict[str, str]:
    """Return the headers of a file whose name changes with its content."""
    return {
        **_EVERYWHERE,
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "cache-control": "public, max-age=31536000, immutable",
    }
