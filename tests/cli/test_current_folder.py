"""No command runs code that lies in the folder it is started in."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance import settings
from tests.models import write_tiny_gguf
from tests.server import ROOT, free_port

HOSTILE = ("msgspec", "random", "tui", "click", "numpy", "logging", "httpx2", "secrets", "textual")
TRAP = "from pathlib import Path\nPath({mark!r}).touch()\nraise SystemExit(66)\n"


@pytest.fixture
def trap(tmp_path):
    """A folder full of modules that leave a mark when they are run."""
    folder, mark = tmp_path / "hostile", tmp_path / "mark"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(TRAP.format(mark=str(mark)))
    write_tiny_gguf(folder / "tiny.gguf", seed=1)
    return folder, mark


@pytest.fixture
def environment(tmp_path):
    """The program importable from anywhere, and an empty entry that means the current folder."""
    chosen = {
        "GIGAROUTER_DATA_DIR": str(tmp_path / "data"),
        "GIGAROUTER_PORT": str(free_port()),
        "GIGAROUTER_ENGINE_CALIBRATE": "false",
    }
    return {**os.environ, **chosen, "PYTHONPATH": str(ROOT)}


COMMANDS = {
    "help": ["--help"],
    "mint": ["keys", "mint", "a"],
    "list": ["keys", "list"],
    "models": ["models", "list"],
    "add": ["models", "add", "tiny.gguf", "--id", "mine/tiny"],
    "usage": ["usage"],
    "doctor": ["doctor"],
    "backup": ["backup", "copy.db"],
    "engine": ["engine", "show"],
}
ADDED = ":"
"""To PYTHONPATH: a leading empty entry, which many shells' start files leave behind."""


def run(command, folder, environment, **options):
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


@pytest.mark.parametrize("path", ["", ADDED, ".:"], ids=["plain", "empty entry", "relative entry"])
def test_a_module_of_the_current_folder_is_not_run_by_the_command_line(trap, environment, path):
    folder, mark = trap
    environment["PYTHONPATH"] = path + environment["PYTHONPATH"]
    for name in COMMANDS if not path else ("list", "add"):
        done = run([sys.executable, "-m", "appliance", *COMMANDS[name]], folder, environment)
        assert done.returncode == 0, (name, done.stderr)
        assert not mark.exists(), name


@pytest.mark.parametrize(
    "entry", [["-m", "appliance", "console"], ["-m", "tui"]], ids=["console", "tui"]
)
def test_a_module_of_the_current_folder_is_not_run_by_the_console(trap, environment, entry):
    folder, mark = trap
    if entry == ["-m", "tui"]:
        (folder / "tui.py").unlink()  # Python finds it before any line of ours is run
    where = ["--data-dir", environment["GIGAROUTER_DATA_DIR"]]
    # The flags are wrong, so that it ends: by then all of it is imported.
    done = run([sys.executable, *entry, *where, "--url", "http://x"], folder, environment)
    assert "--url needs --token-file" in done.stderr
    assert not mark.exists()


def test_a_module_of_the_current_folder_is_not_run_by_the_server_and_its_children(
    trap, environment
):
    folder, mark = trap
    command = [sys.executable, "-m", "appliance"]
    server = subprocess.Popen(
        [*command, "serve"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in server.stderr:
            if "listening" in line:
                break
        reader = threading.Thread(target=server.stderr.read, daemon=True)
        reader.start()
        done = run([*command, *COMMANDS["add"]], folder, environment)
        assert done.returncode == 0, done.stderr
    finally:
        server.terminate()
        server.wait(60)
        reader.join(10)
        server.stderr.close()
    assert list(Path(environment["GIGAROUTER_DATA_DIR"], "models", "trials").iterdir())
    assert not mark.exists()


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh here")
def test_a_module_of_the_current_folder_is_not_run_by_the_set_up(trap, environment):
    folder, mark = trap
    (folder / "venv.py").write_text(TRAP.format(mark=str(mark)))
    (folder / "ensurepip.py").write_text(TRAP.format(mark=str(mark)))
    script = f'. "{ROOT}/packaging/environment.sh"; find_python'
    environment["PYTHON"] = sys.executable
    done = run(["sh", "-c", script], folder, environment)
    assert done.stdout == sys.executable
    assert not mark.exists()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (None, None),
        ("", None),
        (":", None),
        (".", None),
        ("a:/b", "/b"),
        (":/b:./c:/d:", "/b:/d"),
        ("/b", "/b"),
    ],
)
def test_programs_that_we_start_get_no_relative_entry_of_the_path(monkeypatch, given, left):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    assert settings.environment().get("PYTHONPATH") == left


@pytest.mark.parametrize("package", ["appliance", "tui", "packaging"])
def test_every_python_that_we_start_is_told_to_leave_the_current_folder_out(package):
    found = []
    for path in (ROOT / package).rglob("*.py"):
        text = path.read_text("utf-8")
        found += [
            (path.name, text[place : place + 40])
            for place in range(len(text))
            if text.startswith("sys.executable,", place)
            and not text[place + len("sys.executable,") :].lstrip().startswith('"-P"')
        ]
    assert found == []
