"""The file that a console gives a server it starts stays short, whoever writes to it."""

import subprocess
import sys
from pathlib import Path

from appliance.store.bounded_file import BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import logging, sys
from pathlib import Path
from appliance import logs
logs.configure("text", own_file=Path(sys.argv[1]))
for number in range(3):
    logging.getLogger("gigarouter.test").warning("line %d", number)
"""


def run(log, own_file):
    with log.open("ab") as stream:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(own_file)], cwd=ROOT, stderr=stream, check=True
        )


def test_a_log_of_ours_is_shifted_when_it_is_long_and_no_line_is_lost(tmp_path):
    log = tmp_path / "server.log"
    log.write_bytes(b"x" * (BYTES_MAX - 10) + b"\n")
    log.chmod(0o600)
    run(log, log)
    older = tmp_path / "server.log.1"
    assert "line 0" in older.read_text()[-40:]
    assert [line[-6:] for line in log.read_text().splitlines()] == ["line 1", "line 2"]
    assert older.stat().st_mode & 0o777 == 0o600


def test_a_file_that_somebody_else_chose_is_left_alone(tmp_path):
    log = tmp_path / "mine.log"
    log.write_bytes(b"x" * BYTES_MAX + b"\n")
    run(log, tmp_path / "server.log")
    assert log.stat().st_size > BYTES_MAX
    assert list(tmp_path.iterdir()) == [log]
