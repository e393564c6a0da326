"""Navigation: the pages that there are, in the order in which each of them links to all."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """One page."""

    path: str
    name: str


PAGES = (
    Page("/", "Models"),
    Page("/docs", "API"),
    Page("/playground", "Playground"),
    Page("/account", "Account"),
)
ADMIN = Page("/admin", "Admin")
"""For the operator alone: other machines do not learn of it."""
