"""Release: everything that is published with a version, in one folder.

    python packaging/release.py --out DIR [--engines DIR] [--sign KEY]
    python packaging/release.py --check DIR [--signers FILE]

Writes the source distribution and the wheel (the same commit gives the same bytes), the engine's
wheels that `packaging/engines/make.py` made, the bill of materials, manual pages, completions for
bash, zsh and fish, this version's part of the changelog, SHA256SUMS and, with a key of ssh, its
signature (`ssh-keygen -Y`). --check holds a folder against its sums and, with a file of allowed
signers, against the signature.
"""

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import man
import sbom
from click.shell_completion import get_completion_class

from appliance.cli.main import cli
from appliance.native import distribution

ROOT = Path(__file__).resolve().parents[1]

CHANGELOG = ROOT / "packaging/CHANGELOG.md"
SUMS = "SHA256SUMS"
NAMESPACE = "gigarouter-release"
"""Of the signature: one made for something else is none."""
SIGNER = "release"
SHELLS = ("bash", "zsh", "fish")


class NotReleasable(Exception):
    """This checkout, or this folder, is no release; the message says why."""


def version() -> str:
    """Return the project's version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def notes(number: str) -> str:
    """Return the changelog's part about a version, which must be the newest.

    Raises:
        NotReleasable: another one is.
    """
    parts = re.split(r"^## ", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    if not parts or parts[0].split()[0] != number:
        newest = parts[0].split()[0] if parts else "none"
        raise NotReleasable(f"the newest in {CHANGELOG.name} is {newest}, and this is {number}")
    return "## " + parts[0].rstrip() + "\n"


def make(out: Path, *, engines: Path | None, sign: Path | None, is_dirty: bool) -> None:
    """Write a release into a folder that is empty or not there.

    Raises:
        NotReleasable: the checkout has changes, or the folder has files.
    """
    number, when = version(), _commit_time(is_dirty=is_dirty)
    said = notes(number)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise NotReleasable(f"{out} is not empty")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(when)}
    for target in ("sdist", "wheel"):
        command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", target, "-d", str(out)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    for engine in sorted(engines.iterdir()) if engines else ():
        if (
            engine.name.startswith("gigarouter_engine")
            and f"-{distribution.VERSION}" in engine.name
        ):
            shutil.copy(engine, out)
    (out / "sbom.json").write_text(sbom.text(), encoding="utf-8")
    (out / "NOTES.md").write_text(said, encoding="utf-8")
    extras = {f"man/{name}": text for name, text in man.pages(number).items()}
    extras |= {f"completions/gigarouter.{shell}": completion(shell) for shell in SHELLS}
    _pack(out / f"gigarouter-{number}-extras.tar.gz", extras, when)
    (out / SUMS).write_text(_sums(out), encoding="utf-8")
    if sign is not None:
        command = ["ssh-keygen", "-Y", "sign", "-f", str(sign), "-n", NAMESPACE, str(out / SUMS)]
        subprocess.run(command, check=True, capture_output=True)


def completion(shell: str) -> str:
    """Return what a shell reads to complete the command's words."""
    found = get_completion_class(shell)
    assert found is not None
    return found(cli, {}, "gigarouter", "_GIGAROUTER_COMPLETE").source()


def check(folder: Path, signers: Path | None) -> int:
    """Hold a release against its sums and its signature; return how many files there are.

    Raises:
        NotReleasable: a file is another, missing, or in no sum; or the signature is not theirs.
    """
    written = (folder / SUMS).read_text(encoding="utf-8")
    if written != _sums(folder):
        wrong = set(written.splitlines()) ^ set(_sums(folder).splitlines())
        names = sorted({line.split("  ", 1)[-1] for line in wrong})
        raise NotReleasable(f"not as {SUMS} says: {', '.join(names)}")
    if signers is not None:
        signature = folder / f"{SUMS}.sig"
        command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", SIGNER]
        command += ["-n", NAMESPACE, "-s", str(signature)]
        ran = subprocess.run(command, input=written, text=True, capture_output=True, check=False)
        if ran.returncode != 0:
            raise NotReleasable(f"the signature is not theirs: {ran.stderr.strip()}")
    return len(written.splitlines())


def _sums(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(SUMS))
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files
    )


def _pack(path: Path, files: Mapping[str, str], when: int) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=when) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, text in sorted(files.items()):
            info = tarfile.TarInfo(name)
            content = text.encode()
            info.size, info.mtime, info.mode = len(content), when, 0o644
            tar.addfile(info, io.BytesIO(content))


def _commit_time(*, is_dirty: bool) -> int:
    if not is_dirty and _git("status", "--porcelain"):
        raise NotReleasable("the checkout has changes: commit them first")
    return int(_git("log", "-1", "--format=%ct") or 0)


def _git(*arguments: str) -> str:
    ran = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    )
    return ran.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="an empty folder, or a new one")
    parser.add_argument("--engines", type=Path, help="a folder with the engine's wheels")
    parser.add_argument("--sign", type=Path, help="a private key of ssh")
    parser.add_argument("--dirty", action="store_true", help="a rehearsal, with changes")
    parser.add_argument("--check", type=Path, help="a release's folder")
    parser.add_argument("--signers", type=Path, help="allowed signers; theirs is called release")
    given = parser.parse_args()
    try:
        if given.check:
            count = check(given.check, given.signers)
            print(f"{count} files are as {SUMS} says" + (", signed" * bool(given.signers)))
        elif given.out:
            make(given.out, engines=given.engines, sign=given.sign, is_dirty=given.dirty)
            print((given.out / SUMS).read_text(), end="")
            if not given.sign:
                print("not signed: --sign KEY", file=sys.stderr)
        else:
            parser.error("--out or --check")
    except (NotReleasable, OSError) as failure:
        sys.exit(f"release: {failure}")


if __name__ == "__main__":
    main()
