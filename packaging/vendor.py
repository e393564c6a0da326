"""Vendor: fetch what others wrote for browsers, and hold the copies here against it.

    python packaging/vendor.py            fetch, verify, and write the copies
    python packaging/vendor.py --check    fetch, verify, and compare; exit 1 if a copy differs

Owns the versions and checksums of these packages. Each is fetched with `npm pack`; what comes must
have the SHA-512 that stands here, so a registry cannot change a byte of it.
"""

import argparse
import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "appliance" / "pages" / "static"
TESTS = ROOT / "tests" / "pages"


@dataclass(frozen=True)
class Copy:
    """A file of a package's, as it lies here."""

    name: str
    """Its path inside the package."""
    path: Path
    sha256: str


@dataclass(frozen=True)
class Package:
    """One package of npm's, and where files of it go."""

    name: str
    version: str
    integrity: str
    """As npm writes it: `sha512-` and the digest in base64."""
    licence: str
    """Its SPDX identifier."""
    copies: tuple[Copy, ...]


PACKAGES = (
    Package(
        "swagger-ui-dist",
        "5.35.0",
        "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        "Apache-2.0",
        (
            Copy(
                "swagger-ui-bundle.js",
                STATIC / "swagger-ui-bundle.js",
                "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
            ),
            Copy(
                "swagger-ui.css",
                STATIC / "swagger-ui.css",
                "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
            ),
            Copy(
                "LICENSE",
                STATIC / "swagger-ui.LICENSE",
                "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
            ),
            Copy(
                "NOTICE",
                STATIC / "swagger-ui.NOTICE",
                "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
            ),
            Copy(
                "swagger-ui-bundle.js.LICENSE.txt",
                STATIC / "swagger-ui.parts.LICENSE",
                "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
            ),
        ),
    ),
    Package(  # finds faults of accessibility, in tests alone
        "axe-core",
        "4.14.1",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        "MPL-2.0",
        (
            Copy(
                "axe.min.js",
                TESTS / "axe.min.js",
                "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
            ),
            Copy(
                "LICENSE",
                TESTS / "axe.LICENSE",
                "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
            ),
            Copy(
                "LICENSE-3RD-PARTY.txt",
                TESTS / "axe.parts.LICENSE",
                "4f8563870d0fca38bbc3e00b6f670cb7fa9f380ba9f26a7f7d1184a6b18b1653",
            ),
        ),
    ),
)


def fetch(package: Package, folder: Path) -> Path:
    """Return the package's archive, or exit if it is not the one that we know."""
    folder.mkdir()
    subprocess.run(
        ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [archive] = folder.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if package.integrity != f"sha512-{digest}":
        sys.exit(f"{package.name} {package.version} is sha512-{digest}, not {package.integrity}")
    return archive


def contents(package: Package, archive: Path) -> dict[Path, bytes]:
    """Return what each copy must hold; only names that stand here are ever read."""
    found = {}
    with tarfile.open(archive) as opened:
        for copy in package.copies:
            member = opened.extractfile(f"package/{copy.name}")
            if member is None:
                sys.exit(f"{package.name}: {copy.name} is no file")
            found[copy.path] = member.read()
            if sha256(found[copy.path]) != copy.sha256:
                sys.exit(f"{package.name}: {copy.name} has sha256 {sha256(found[copy.path])}")
    return found


def sha256(content: bytes) -> str:
    """Return a checksum in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch and verify what others wrote for browsers.")
    parser.add_argument("--check", action="store_true", help="write nothing, and compare")
    asked = parser.parse_args()
    differing = []
    with tempfile.TemporaryDirectory() as scratch:
        for package in PACKAGES:
            archive = fetch(package, Path(scratch) / package.name.replace("/", "-"))
            for target, content in contents(package, archive).items():
                if not asked.check:
                    target.write_bytes(content)
                elif not target.is_file() or target.read_bytes() != content:
                    differing.append(str(target.relative_to(ROOT)))
            print(f"{package.name} {package.version} ({package.licence}): verified")
    for path in differing:
        print(f"{path} differs", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
