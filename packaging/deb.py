"""Deb: a Debian package of gigarouter, for the machine and the Python that it is made on.

    python3 packaging/deb.py [--engine WHEEL] [--python /usr/bin/python3] [--out DIR]

The program is a virtual environment in /usr/lib/gigarouter, with what packaging/lock/run.txt names.
Without --engine the engine is compiled here, with kernels for every processor. Needs dpkg-deb, and
what the lock's installation needs.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from email.utils import formatdate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from appliance.service.definition import SYSTEM_DATA_DIR, Definition
from appliance.service.unit import UNIT, systemd_unit

ROOT = Path(__file__).resolve().parents[1]
HOME = Path("/usr/lib/gigarouter")
"""Where the environment is once the package is installed."""
BUILD_ONLY = ("editables", "hatchling", "pathspec", "trove-classifiers")
"""What the lock has for building the project alone."""
ABOUT = """\
Embeddings and reranking behind an OpenAI-compatible API
 Serves GGUF models (embeddings, reranking) on this machine, with keys and
 prepaid credits, an operator's API and a console in the terminal.
 .
 The service listens on 127.0.0.1:8642 and keeps its data in
 /var/lib/gigarouter, which stays when the package is purged.
"""
POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ -z "$2" ]; then
        systemctl enable --now gigarouter.service || true
    else
        systemctl try-restart gigarouter.service || true
    fi
fi
"""
PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now gigarouter.service || true
fi
"""
POSTRM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ "$1" = purge ]; then
    # The books stay: they are other people's money.
    rm -rf /etc/gigarouter
fi
"""
OVERRIDES = """\
# A virtual environment: others' libraries, as they publish them, in the versions that are tested.
gigarouter: embedded-library
gigarouter: executable-not-elf-or-script
gigarouter: extra-license-file
gigarouter: hardening-no-bindnow
gigarouter: hardening-no-fortify-functions
gigarouter: library-not-linked-against-libc
gigarouter: package-contains-documentation-outside-usr-share-doc
gigarouter: package-contains-timestamped-gzip
gigarouter: package-installs-python-pycache-dir
gigarouter: shared-library-lacks-prerequisites
gigarouter: unstripped-binary-or-object
gigarouter: unusual-interpreter
# `gigarouter --help` is the manual.
gigarouter: no-manual-page
# deb-systemd-helper may not be there; where systemd runs, systemctl is.
gigarouter: maintainer-script-calls-systemctl
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", type=Path, help="a wheel of the engine for any processor")
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--out", type=Path, default=Path("dist"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gigarouter-deb.") as temporary:
        tree = Path(temporary, "tree")
        version = install(tree, Path(temporary, "build"), chosen.python, chosen.engine)
        describe(tree, version, python_of(chosen.python))
        chosen.out.mkdir(parents=True, exist_ok=True)
        run("dpkg-deb", "--root-owner-group", "--build", tree, chosen.out.absolute())
    print(f"deb: the package is in {chosen.out}", file=sys.stderr)


def install(tree: Path, build: Path, python: str, engine: Path | None) -> str:
    """Make the environment below the tree; return the project's version."""
    home = tree / HOME.relative_to("/")
    run(python, "-m", "venv", build)
    run(python, "-m", "venv", "--without-pip", home)
    pip = (build / "bin/python", "-m", "pip", "--disable-pip-version-check", "--python", home)
    locked = ("--require-hashes", "--requirement", ROOT / "packaging/lock/run.txt")
    run(*pip, "install", "--no-compile", *locked)
    wheel = compiled(build) if engine is None else engine.absolute()
    run(*pip, "install", "--no-compile", "--no-deps", wheel)
    own = ("--no-compile", "--no-deps", "--no-build-isolation")
    run(*pip, "install", *own, ROOT)
    run(*pip, "uninstall", "--yes", *BUILD_ONLY)
    run(*pip, "check")
    for script in (home / "bin").iterdir():
        if script.name == "gigarouter":
            script.write_bytes(script.read_bytes().replace(os.fsencode(home), os.fsencode(HOME)))
        elif not script.name.startswith("python"):  # libraries' own commands, and those of a shell
            script.unlink()
    interpreter = home / "bin/python3"
    target = interpreter.readlink()
    interpreter.unlink()
    interpreter.symlink_to(os.path.relpath(target, HOME / "bin"))
    shutil.rmtree(home / "share", ignore_errors=True)
    shutil.rmtree(home / "include", ignore_errors=True)
    configuration = home / "pyvenv.cfg"
    lines = configuration.read_text().splitlines(keepends=True)
    configuration.write_text("".join(each for each in lines if not each.startswith("command")))
    for record in home.rglob("direct_url.json"):  # it names the folder of this checkout
        record.unlink()
    # Nobody but root may write there, so it is compiled here; the modes are those of any package.
    run(python, "-m", "compileall", "-q", "-s", home, "-p", HOME, home / "lib")
    run("chmod", "-R", "u=rwX,go=rX", tree)
    for library in home.rglob("*.so*"):
        library.chmod(0o644)
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def compiled(build: Path) -> Path:
    """Return a wheel of the engine that was compiled here, for any processor of this kind."""
    make = ROOT / "packaging/engines/make.py"
    run(build / "bin/python", make, "--out", build / "engine", "cpu")
    [wheel] = (build / "engine").glob("*.whl")
    return wheel


def python_of(python: str) -> tuple[int, int]:
    """Return the version of an interpreter, to which its environments are bound."""
    program = "import sys; print(*sys.version_info[:2])"
    major, minor = run(python, "-c", program).split()
    return int(major), int(minor)


def describe(tree: Path, version: str, python: tuple[int, int]) -> None:
    """Write what Debian knows of the package, and the unit of its service."""
    definition = Definition(
        scope="system",
        program=(str(HOME / "bin/python"), "-P", "-m", "appliance"),
        code=(HOME,),
        data_dir=SYSTEM_DATA_DIR,
        listening=(),
        port=8642,
    )
    put(tree / "usr/lib/systemd/system" / UNIT, systemd_unit(definition))
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/gigarouter").symlink_to(f"../lib/{HOME.name}/bin/gigarouter")
    documents = tree / "usr/share/doc/gigarouter"
    put(documents / "copyright", copyright_text())
    changes = (
        f"gigarouter ({version}) stable; urgency=medium\n\n  * The project's own package.\n\n"
        f" -- {maintainer()}  {formatdate(0)}\n"
    )
    (documents / "changelog.gz").write_bytes(gzip.compress(changes.encode(), mtime=0))
    put(tree / "usr/share/lintian/overrides/gigarouter", OVERRIDES)
    control = tree / "DEBIAN"
    installed_kb = sum(each.lstat().st_size for each in tree.rglob("*") if each.is_file()) // 1024
    major, minor = python
    put(
        control / "control",
        f"Package: gigarouter\nVersion: {version}\nArchitecture: {architecture()}\n"
        f"Maintainer: {maintainer()}\nInstalled-Size: {installed_kb}\n"
        f"Depends: python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1}), "
        "libc6 (>= 2.34), libgcc-s1, libgomp1, libstdc++6 (>= 12)\nRecommends: ca-certificates\n"
        "Suggests: python3-venv\nSection: net\nPriority: optional\n"
        f"Description: {ABOUT}",
    )
    for name, text in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
        put(control / name, text, mode=0o755)
    files = sorted(p for p in tree.rglob("*") if p.is_file() and not p.is_symlink())
    sums = [
        f"{md5(each)}  {each.relative_to(tree)}" for each in files if control not in each.parents
    ]
    put(control / "md5sums", "\n".join(sums) + "\n")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()  # as dpkg has it


def copyright_text() -> str:
    """Return Debian's machine-readable account of the licence."""
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: gigarouter\n\nFiles: *\nCopyright: 2026 the gigarouter project\n"
        "License: Apache-2.0\n On Debian systems the whole text is in\n"
        " /usr/share/common-licenses/Apache-2.0. What is in /usr/lib/gigarouter of\n"
        " others has its licence in its own .dist-info there.\n"
    )


def maintainer() -> str:
    """Return who makes the package: DEBFULLNAME and DEBEMAIL, as Debian's own tools do."""
    name = os.environ.get("DEBFULLNAME", "gigarouter")
    return f"{name} <{os.environ.get('DEBEMAIL', 'root@localhost.localdomain')}>"


def architecture() -> str:
    return run("dpkg", "--print-architecture").strip()


def put(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def run(*words: object, environment: dict[str, str] | None = None) -> str:
    """Return what a command prints; one that fails ends this one."""
    command = [str(word) for word in words]
    ended = subprocess.run(
        command, cwd="/", env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"deb: {shutil.which(command[0]) or command[0]} failed; see above")
    return ended.stdout


if __name__ == "__main__":
    main()
