"""Restart: what is said of a server that was started again, or that does not answer."""

from appliance.core.version import program_version, skew
from appliance.wire.stats import Stats
from tui import figures
from tui.inert import plain


def restarted(before: Stats | None, now: Stats) -> str:
    """Return what to say of a server that runs for less long than it did; empty: it does not.

    At the first look (`before` is None), what to say of one of another version.
    """
    if before is None:
        return skew(plain(now.version), program_version())
    if now.uptime_s >= before.uptime_s:
        return ""
    how = plain(now.ended_before) or "ended"
    ago = figures.duration(now.uptime_s)
    return f"The server {how} and was started again {ago} ago. The log (5) says what it died of"


def age_of(answered_ns: int | None, now_ns: int) -> str:
    """Return how old what is drawn is, in words; empty: nothing was ever answered."""
    if answered_ns is None:
        return ""
    return f"what you see is {figures.duration((now_ns - answered_ns) / 1e9)} old"
