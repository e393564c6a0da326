"""Redaction: secrets never leave in a log line, a traceback or a page.

Owns what counts as a secret: everything that has the shape of a key, and the texts that were named
to `conceal`, as the operator's token is when it is read.
"""

import re

KEY = re.compile(r"gr-[0-9A-Za-z]{38}(?![0-9A-Za-z])")
"""The shape of a key's plaintext, wherever it stands: in a URL, behind `Bearer`, in quotes."""
SHORT = 8
"""A text with fewer characters is no secret: replacing it would garble what is said."""
KNOWN_MAX = 64
STAND_IN = "[redacted]"

_known: list[str] = []
"""Secrets of this process, the newest last."""


def conceal(secret: str) -> None:
    """Name a secret of this process: `redacted` replaces it from now on."""
    if len(secret) >= SHORT and secret not in _known:
        _known.append(secret)
        del _known[:-KNOWN_MAX]


def redacted(text: str) -> str:
    """Return the text with every key and every named secret replaced."""
    if "gr-" in text:
        text = KEY.sub(f"gr-{STAND_IN}", text)
    for secret in _known:
        if secret in text:
            text = text.replace(secret, STAND_IN)
    return text
