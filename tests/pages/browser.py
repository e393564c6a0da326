"""Browser: pages read by Chromium, with all that went wrong there written down.

Owns how a page is opened, and what counts as a fault: an error in its console, a breach of its
policy, and a request to any other host.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

AXE = Path(__file__).with_name("axe.min.js")
GRAVE = ("serious", "critical")
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 900}}
THEMES = ("light", "dark")
TABS_MAX = 200

WATCH = """
window.breaches = [];
addEventListener("securitypolicyviolation", (event) => {
  window.breaches.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


@dataclass
class Visit:
    """One page in a browser of its own: nothing is shared with other visits."""

    page: Page
    host: str
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Every address that was asked for."""

    def foreign(self) -> list[str]:
        """Return the addresses that are another host's."""
        kept = [url for url in self.asked if not url.startswith(("data:", "blob:", "about:"))]
        return [url for url in kept if urlsplit(url).netloc != self.host]

    def found(self) -> list[str]:
        """Return everything that went wrong until now."""
        return [*self.faults, *self.page.evaluate("window.breaches"), *self.foreign()]

    def axe(self) -> list[str]:
        """Return what axe-core finds serious or critical, with its first element."""
        self.page.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
        result: dict[str, Any] = self.page.evaluate("axe.run()")
        assert len(result["passes"]) > 10, "axe looked at the page"
        return [
            f"{each['id']} ({len(each['nodes'])}): {each['nodes'][0]['html'][:200]}"
            for each in result["violations"]
            if each["impact"] in GRAVE
        ]

    def is_wide(self) -> bool:
        """Say whether the page must be scrolled sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus; it must be seen to have it."""
        for _ in range(TABS_MAX):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        message = f"Tab does not reach {selector}"
        raise AssertionError(message)

    def focus_is_seen(self) -> bool:
        """Say whether the focused element, or its label, has an outline."""
        return bool(
            self.page.evaluate(
                """() => {
                  const at = document.activeElement;
                  const drawn = [at, ...(at.labels || [])].map((each) => getComputedStyle(each));
                  return drawn.some((s) => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 1);
                }"""
            )
        )


@contextmanager
def browsing(program: str) -> Iterator[Browser]:
    """Yield a browser that can reach this machine alone."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield started
        started.close()


@contextmanager
def visiting(
    browser: Browser, url: str, *, size: str = "desktop", theme: str = "light", **options: Any
) -> Iterator[Visit]:
    """Yield a visit of a page that has been loaded."""
    context = browser.new_context(viewport=SIZES[size], color_scheme=theme, **options)
    context.set_default_timeout(20_000)
    context.add_init_script(WATCH)
    visit = Visit(context.new_page(), urlsplit(url).netloc)
    visit.page.on("console", lambda said: _note(visit, said.type, said.text))
    visit.page.on("pageerror", lambda error: visit.faults.append(str(error)))
    visit.page.on("request", lambda request: visit.asked.append(request.url))
    visit.page.goto(url)
    yield visit
    context.close()


def _note(visit: Visit, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        visit.faults.append(text)
