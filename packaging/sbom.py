"""SBOM: what the program is made of, as CycloneDX 1.6, from packaging/lock/run.txt.

    python packaging/sbom.py [FILE]

Every locked version with the SHA-256 of each of its files, on whatever system it is for; and what
is inside the package itself. The same lock gives the same document.
"""

import hashlib
import json
import re
import sys
import tomllib
import uuid
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from licences import licence_of
from packaging.requirements import Requirement
from vendor import PACKAGES, STATIC

from appliance.native.distribution import BINDING, BINDING_SHA256, binding_version

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "packaging/lock/run.txt"
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, object]]:
    """Return a component for each locked version."""
    found = []
    for entry in lock.replace("\\\n", " ").splitlines():
        requirement = Requirement(HASH.split(entry)[0].strip())
        [pin] = requirement.specifier
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{requirement.name}@{pin.version}",
            "name": requirement.name,
            "version": pin.version,
            "purl": f"pkg:pypi/{requirement.name}@{pin.version}",
            "hashes": [{"alg": "SHA-256", "content": each} for each in HASH.findall(entry)],
        }
        if requirement.marker is not None:
            component["properties"] = [{"name": "marker", "value": str(requirement.marker)}]
        licence = _licence(requirement.name, pin.version)
        if licence is not None:
            component["licenses"] = [{"license": {"name": licence}}]
        found.append(component)
    return found


def _licence(name: str, version: str) -> str | None:
    """Return what is said where this version is installed; others are for other systems."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    return licence_of(found) if found.version == version else None


def models() -> list[dict[str, object]]:
    """Return a component for each model inside the package."""
    catalogue = tomllib.loads((ROOT / "models.toml").read_text(encoding="utf-8"))
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": f"model:{model['id']}",
            "name": model["id"],
            "hashes": [{"alg": "SHA-256", "content": model["sha256"]}],
            "licenses": [{"license": {"name": model["license"]}}],
        }
        for model in catalogue["model"]
        if "source" not in model
    ]


def engine() -> list[dict[str, object]]:
    """Return a component for the binding that our engine carries, which no lock has."""
    pin = f"pkg:pypi/{BINDING}@{binding_version()}"
    return [
        {
            "type": "library",
            "bom-ref": pin,
            "name": BINDING,
            "version": binding_version(),
            "purl": pin,
            "hashes": [{"alg": "SHA-256", "content": BINDING_SHA256}],
            "licenses": [{"license": {"id": "MIT"}}],
        }
    ]


def bundled() -> list[dict[str, object]]:
    """Return a component for each package of others' whose files pages load."""
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:npm/{package.name}@{package.version}",
            "name": package.name,
            "version": package.version,
            "purl": f"pkg:npm/{package.name}@{package.version}",
            "hashes": [
                {"alg": "SHA-256", "content": copy.sha256}
                for copy in package.copies
                if copy.path.parent == STATIC
            ],
            "licenses": [{"license": {"id": package.licence}}],
        }
        for package in PACKAGES
        if package.copies[0].path.parent == STATIC
    ]


def document() -> dict[str, object]:
    lock = LOCK.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = [*components(lock), *engine(), *bundled(), *models()]
    name = f"pkg:pypi/{project['name']}@{project['version']}"
    content = hashlib.sha256(json.dumps([name, parts]).encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, content).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": name,
                "name": project["name"],
                "version": project["version"],
                "purl": name,
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": name, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def text() -> str:
    """Return the document as it is published."""
    return json.dumps(document(), indent=1) + "\n"


def main() -> None:
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text(), encoding="utf-8")
    else:
        sys.stdout.write(text())


if __name__ == "__main__":
    main()
