"""Accept: what a request would rather have, read from its headers (RFC 9110, section 12.5).

A browser that opens a page asks for HTML before anything else; programs ask for JSON, for anything,
or do not say. Only the first gets a page.
"""

PAGE_TYPES = ("text/html", "application/xhtml+xml")
RANGES_MAX = 64
"""Of a list that is longer the rest does not count."""


def prefers_page(accept: str) -> bool:
    """Say whether HTML is what an `Accept` header wants most; of equals the first counts."""
    weighed = _weighed(accept)
    best = max((weight for _, weight in weighed), default=0.0)
    first = next((name for name, weight in weighed if weight == best > 0), "")
    return first in PAGE_TYPES


def takes_gzip(accept_encoding: str) -> bool:
    """Say whether an `Accept-Encoding` header allows gzip."""
    weights = dict(_weighed(accept_encoding))
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weighed(header: str) -> list[tuple[str, float]]:
    """Return the members of a header in lower case, each with its weight between 0 and 1."""
    found = []
    for member in header.split(",", RANGES_MAX)[:RANGES_MAX]:
        name, *parameters = (part.strip().lower() for part in member.split(";"))
        texts = [each[2:] for each in parameters if each.startswith("q=")]
        found.append((name, _weight(texts[0]) if texts else 1.0))
    return found


def _weight(text: str) -> float:
    """Return a weight; 0 where it is none."""
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
