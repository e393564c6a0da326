"""Tour: the console in a terminal of its own, over a really started server, recorded as a cast.

    .venv/bin/python packaging/tour.py

Writes packaging/screenshots/tour.cast (asciicast v2): `asciinema play` shows it.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.server import Server  # noqa: E402 - after the path

CAST = ROOT / "packaging" / "screenshots" / "tour.cast"
WIDTH, HEIGHT = 80, 24
BYTES_MAX = 200_000
KEY = re.compile(r"gr-[0-9A-Za-z]{38}")
STEPS = (
    ("", 4),
    ("Enter", 3),  # the first key, and a call with it
    ("Enter", 3),
    ("h", 2),
    ("2", 2),
    ("Enter", 2),  # a model's page
    ("Escape", 1),
    ("3", 2),
    ("Enter", 2),  # a key's page
    ("Escape", 1),
    ("4", 2),
    ("5", 2),
    ("f", 1),
    ("listen", 1),
    ("Enter", 2),
)
"""What is typed, and the seconds that it is looked at."""
LOOKS_A_SECOND = 2


def record(data_dir: Path) -> list[tuple[float, str]]:
    """Return how the terminal changed, each time with the seconds since the start."""

    def tmux(*words: str) -> str:
        # A server of its own, without anybody's settings.
        command = ["tmux", "-L", f"tour-{data_dir.parent.name}", "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    console = shlex.join([sys.executable, "-P", "-m", "tui", "--data-dir", str(data_dir)])
    size = ("-x", str(WIDTH), "-y", str(HEIGHT))
    start = f"cd {shlex.quote(str(ROOT))} && exec {console}"
    tmux("new-session", "-d", "-s", "tour", *size, start)
    began, changes, before = time.monotonic(), [], [""] * HEIGHT
    try:
        for key, seconds in STEPS:
            if key:
                tmux("send-keys", "-t", "tour", key)
            for _ in range(seconds * LOOKS_A_SECOND):
                time.sleep(1 / LOOKS_A_SECOND)
                now = tmux("capture-pane", "-e", "-p", "-t", "tour").splitlines()
                now += [""] * (HEIGHT - len(now))
                changed = changes_of(before, now)
                if changed:
                    changes.append((time.monotonic() - began, changed))
                before = now
    finally:
        tmux("kill-server")
    return changes


def changes_of(before: list[str], now: list[str]) -> str:
    """Return what draws the lines that changed."""
    return "".join(
        f"\x1b[{n};1H\x1b[0m{line}\x1b[0m\x1b[K"
        for n, (old, line) in enumerate(zip(before, now, strict=True), 1)
        if old != line
    )


def main() -> None:
    """Record, and write the cast unless it is large."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start()
        try:
            frames = record(server.data_dir)
        finally:
            server.stop()
    head = {"version": 2, "width": WIDTH, "height": HEIGHT, "title": "gigarouter"}
    lines = [json.dumps(head)]
    for at, text in frames:
        # A scanner for leaked keys must not find one here, and no path of this machine.
        shown = KEY.sub("gr-" + "\u2022" * 38, text).replace(folder, "/home/team")
        lines.append(json.dumps([round(at, 2), "o", shown], ensure_ascii=False))
    cast = "\n".join(lines) + "\n"
    if len(cast.encode()) > BYTES_MAX:
        raise SystemExit(f"the cast has {len(cast.encode()):,} bytes, and may have {BYTES_MAX:,}")
    CAST.write_text(cast, "utf-8")
    print(f"{CAST}: {len(cast.encode()):,} bytes, {frames[-1][0]:.0f} s")


main()
