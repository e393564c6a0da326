"""Tour: the console in a terminal of its own, over a really started server, recorded as a cast.

    .venv/bin/python packaging/tour.py

Writes packaging/screenshots/tour.cast (asciicast v2): `asciinema play` shows it.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.server import Server  # noqa: E402 - after the path

CAST = ROOT / "packaging" / "screenshots" / "tour.cast"
WIDTH, HEIGHT = 80, 24
BYTES_MAX = 200_000
KEY = re.compile(r"gr-[0-9A-Za-z]{38}")
STEPS = (
    ("", 3.0),
    ("\r", 3.0),  # the first key, and a call with it
    ("\r", 2.0),
    ("h", 1.5),
    ("2", 2.0),
    ("\r", 2.0),  # a model's page
    ("\x1b", 1.0),
    ("3", 1.5),
    ("\r", 2.0),  # a key's page
    ("\x1b", 1.0),
    ("4", 1.5),
    ("5", 2.0),
    ("f", 0.5),
    ("listen", 0.5),
    ("\r", 2.0),
    ("q", 1.5),
)
"""What is typed, and the seconds that it is looked at."""


def record(data_dir: Path) -> list[tuple[float, str]]:
    """Return what the console wrote to its terminal, with the seconds since its start."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    console = subprocess.Popen(
        [sys.executable, "-P", "-m", "tui", "--data-dir", str(data_dir)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        start_new_session=True,
    )
    os.close(theirs)
    began, raw = time.monotonic(), []
    with suppress(OSError):  # the console ended
        for keys, look_s in STEPS:
            os.write(ours, keys.encode())
            until = time.monotonic() + look_s
            while (left := until - time.monotonic()) > 0:
                if select.select([ours], [], [], left)[0]:
                    raw.append((time.monotonic() - began, os.read(ours, 65_536)))
    console.terminate()
    console.wait(10)
    os.close(ours)
    return joined(raw)


def joined(raw: list[tuple[float, bytes]]) -> list[tuple[float, str]]:
    """Return whole characters, with reads of the same fifth of a second in one."""
    frames: list[tuple[float, bytes]] = []
    for at, data in raw:
        if frames and at - frames[-1][0] < 0.2:  # noqa: PLR2004 - as said
            frames[-1] = (frames[-1][0], frames[-1][1] + data)
        else:
            frames.append((at, data))
    return [(at, data.decode("utf-8", "replace")) for at, data in frames]


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
