"""Page pictures: two of the pages as they are, over a real server, for the README.

    .venv/bin/python packaging/page_pictures.py

Writes packaging/screenshots/page-*.webp with the Chromium of this machine.
"""

import base64
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.bench.hostile_page import browser as installed  # noqa: E402 - after the path
from tests.pages.browser import Visit, browsing, visiting  # noqa: E402
from tests.server import Server  # noqa: E402

FOLDER = ROOT / "packaging" / "screenshots"
PORT = 8642
BYTES_MAX = 60_000
QUALITY = 50


def keep(visit: Visit, name: str, width: int, height: int) -> None:
    """Write what is seen; exit if it is more than a README should load."""
    path = FOLDER / f"page-{name}.webp"
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    asked = {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True}
    taken = visit.page.context.new_cdp_session(visit.page).send("Page.captureScreenshot", asked)
    path.write_bytes(base64.b64decode(taken["data"]))
    if path.stat().st_size > BYTES_MAX:
        sys.exit(f"{path.name} has {path.stat().st_size} bytes")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> int:
    program = installed()
    if program is None:
        sys.exit("there is no Chromium here")
    with tempfile.TemporaryDirectory() as folder, browsing(program) as browser:
        server = Server(Path(folder) / "data", port=PORT).start()
        try:
            with visiting(browser, server.url) as visit:
                visit.page.set_viewport_size({"width": 1000, "height": 700})
                keep(visit, "models", 1000, 1100)
            with visiting(browser, f"{server.url}/playground", theme="dark") as visit:
                visit.page.set_viewport_size({"width": 1000, "height": 700})
                visit.page.fill("#key", str(server.mint("picture")["key"]))
                visit.page.click("#embed button")
                visit.page.wait_for_selector("#map rect")
                keep(visit, "playground", 1000, 1300)
        finally:
            server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
