"""Vulnerabilities: what pip-audit's JSON says, without calling unknown what nobody looked up.

    python packaging/vulnerabilities.py FOUND.json

Exit code 1: a locked version has a known one.
"""

import json
import sys
from pathlib import Path
from typing import Any


def verdict(found: dict[str, Any]) -> tuple[int, list[str]]:
    """Return the exit code and what to say."""
    every = found["dependencies"]
    skipped = [each for each in every if "skip_reason" in each]
    bad = [
        f"{each['name']} {each['version']}: {known['id']}"
        for each in every
        for known in each.get("vulns", ())
    ]
    said = [*bad]
    if skipped or not every:
        said.append(f"not looked up: {len(skipped)} of {len(every)}; the database does not answer")
    elif not bad:
        said.append(f"none of {len(every)} locked versions has one")
    return (1 if bad else 0), said


def main() -> None:
    code, said = verdict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("\n".join(said))
    sys.exit(code)


if __name__ == "__main__":
    main()
