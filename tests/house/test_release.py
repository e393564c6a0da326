"""A release: the same bytes from the same commit, complete, and held to its sums and signature."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.server import ROOT

RELEASE = ROOT / "packaging/release.py"
EPOCH = "1700000000"

if not (ROOT / ".git").exists():
    pytest.skip("this is no checkout", allow_module_level=True)


def release(*arguments):
    return subprocess.run(
        [sys.executable, RELEASE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", path]
    subprocess.run([str(word) for word in command], check=True, timeout=60)
    signers = path.with_name("signers")
    public = path.with_suffix(".pub").read_text()
    signers.write_text(f"release {public}")
    return path, signers


@pytest.fixture(scope="module")
def made(tmp_path_factory, key):
    """A release with two files that stand for the engine's, one of them of another version."""
    folder = tmp_path_factory.mktemp("release")
    engines = folder / "engines"
    engines.mkdir()
    (engines / "gigarouter_engine-0.3.36-py3-none-any.whl").write_bytes(b"engine")
    (engines / "gigarouter_engine-0.2.1-py3-none-any.whl").write_bytes(b"old")
    (engines / "notes.txt").write_bytes(b"mine")
    done = release(*("--dirty", "--out", folder / "first", "--engines", engines, "--sign", key[0]))
    assert done.returncode == 0, done.stderr
    return folder / "first"


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_everything_that_is_published_is_in_one_folder(made):
    assert names(made) == {
        *("gigarouter-0.1.0.tar.gz", "gigarouter-0.1.0-py3-none-any.whl"),
        "gigarouter_engine-0.3.36-py3-none-any.whl",
        *(
            "gigarouter-0.1.0-extras.tar.gz",
            "sbom.json",
            "NOTES.md",
            "SHA256SUMS",
            "SHA256SUMS.sig",
        ),
    }
    assert (made / "NOTES.md").read_text().startswith("## 0.1.0\n")
    with tarfile.open(made / "gigarouter-0.1.0.tar.gz") as archive:
        inside = archive.getnames()
    assert "gigarouter-0.1.0/packaging/CHANGELOG.md" in inside
    assert "gigarouter-0.1.0/appliance/native/kernels.cpp" in inside


def test_the_same_commit_gives_the_same_bytes(made, tmp_path):
    done = release("--dirty", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert "not signed" in done.stderr
    for name in names(tmp_path / "again") - {"SHA256SUMS"}:
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes(), name


def test_a_release_is_held_to_its_sums_and_its_signature(made, key, tmp_path):
    whole = release("--check", made, "--signers", key[1])
    assert (whole.returncode, whole.stdout) == (0, "6 files are as SHA256SUMS says, signed\n")
    for damage in (
        lambda folder: (folder / "sbom.json").write_text("{}"),
        lambda folder: (folder / "sbom.json").unlink(),
        lambda folder: (folder / "more.whl").write_bytes(b"more"),
        lambda folder: (folder / "SHA256SUMS").write_text(""),
    ):
        folder = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for path in made.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        damage(folder)
        done = release("--check", folder, "--signers", key[1])
        assert done.returncode == 1
        assert "not as SHA256SUMS says" in done.stderr


def test_sums_that_somebody_else_signed_are_refused(made, key, tmp_path):
    other = tmp_path / "other"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)]
    subprocess.run(command, check=True, timeout=60)
    signers = tmp_path / "signers"
    signers.write_text("release " + other.with_suffix(".pub").read_text())
    done = release("--check", made, "--signers", signers)
    assert done.returncode == 1
    assert "the signature is not theirs" in done.stderr


def test_each_command_has_a_manual_page_and_each_shell_its_completions(made, tmp_path):
    with tarfile.open(made / "gigarouter-0.1.0-extras.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    pages = {path.name for path in (tmp_path / "man").iterdir()}
    wanted = ("", "-serve", "-keys", "-keys-mint", "-models-pull", "-engine-install", "-embed")
    assert {f"gigarouter{each}.1" for each in wanted} <= pages
    mint = (tmp_path / "man/gigarouter-keys-mint.1").read_text()
    assert mint.startswith('.TH "GIGAROUTER-KEYS-MINT" "1"')
    assert ".B \\-\\-credit" in mint
    for path in (tmp_path / "man").iterdir():
        lines = path.read_text().splitlines()
        assert [line for line in lines if line.startswith(("'", ". "))] == []
    shells = {path.name: path.read_text() for path in (tmp_path / "completions").iterdir()}
    assert set(shells) == {"gigarouter.bash", "gigarouter.zsh", "gigarouter.fish"}
    assert all("_GIGAROUTER_COMPLETE" in text for text in shells.values())


def test_a_folder_that_is_not_empty_and_a_version_without_words_are_refused(made, monkeypatch):
    done = release("--dirty", "--out", made)
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    import release as program

    with pytest.raises(program.NotReleasable, match=r"the newest in CHANGELOG\.md is 0\.1\.0"):
        program.notes("0.2.0")
    assert Path(program.CHANGELOG).is_file()
