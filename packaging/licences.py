"""Licences: list those of what the program runs with; refuse one that nobody has looked at."""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).with_name("lock") / "run.txt"
KNOWN = re.compile(
    "Apache|BSD|MIT|ISC|PSF|Python Software Foundation|MPL|Mozilla"
    "|Public Domain|Unlicense|0BSD|HPND|Zlib|CC0",
    re.IGNORECASE,
)
"""Licences under which a program of ours may be used and given away, by words of their names."""
REFUSED = re.compile(
    r"GPL|General Public|Affero|SSPL|BUSL|Business Source|Commons Clause|Elastic|Proprietary"
    "|Non-?Commercial",
    re.IGNORECASE,
)
"""Words that want a look even beside a known one: `AND` makes both count."""


def licence_of(found: Distribution) -> str:
    """Return what a distribution says of its licence: expression, else classifiers, else text."""
    told = found.metadata
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in told.get_all("Classifier") or ()
        if each.startswith("License :: ")
    ]
    first = (told.get("License") or "").strip().partition("\n")[0]
    return told.get("License-Expression") or ", ".join(classifiers) or first or "unknown"


def is_known(licence: str) -> bool:
    """Return whether a licence needs nobody's look."""
    return KNOWN.search(licence) is not None and REFUSED.search(licence) is None


def main() -> None:
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.rstrip(" \\")) for line in lines if line and not line[0].isspace()]
    unknown = []
    for pin in pins:
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            licence = licence_of(distribution(pin.name))
        except PackageNotFoundError:
            sys.exit(f"{pin.name} is locked and not installed")
        print(f"{pin.name:24} {licence}")
        if not is_known(licence):
            unknown.append(pin.name)
    if unknown:
        sys.exit(f"look at the licences of {', '.join(unknown)}")


if __name__ == "__main__":
    main()
