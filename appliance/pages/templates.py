"""Templates: the environment in which pages are rendered; the door to Jinja.

All that a template prints is escaped, and a name that it does not know is an error.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from appliance.pages import figures
from appliance.pages.assets import Assets
from appliance.pages.navigation import ADMIN, PAGES

FOLDER = Path(__file__).with_name("html")


def environment(assets: Assets) -> Environment:
    """Return an environment whose templates know `asset(name)` and the figures as filters."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals["asset"] = assets.url
    made.globals["pages"] = PAGES
    made.globals["admin"] = ADMIN
    made.filters["count"] = figures.count_text
    made.filters["bytes"] = figures.bytes_text
    made.filters["grouped"] = figures.grouped
    made.filters["money"] = figures.money_text
    return made
