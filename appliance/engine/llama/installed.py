"""Installed: which build of llama.cpp is here, told without loading it."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from appliance.native.distribution import NAME
from appliance.settings import environment

LIBRARIES = (".so", ".dylib", ".metal")
"""What the name of a file of the library holds; versions may follow."""


@cache
def installed_build() -> str:
    """Return what identifies the installed build: its version, and each library's size and time.

    Empty: there is none.
    """
    found = find_spec("llama_cpp")
    if found is None or found.origin is None:
        return ""
    try:
        number = version(NAME)
    except PackageNotFoundError:
        number = "?"
    chosen = environment().get("LLAMA_CPP_LIB_PATH")  # the binding's own way to another build
    folder = Path(chosen) if chosen else Path(found.origin).parent / "lib"
    files = sorted(path for path in folder.glob("*") if any(e in path.name for e in LIBRARIES))
    stats = [(path.name, path.stat()) for path in files]
    return " ".join([number, *(f"{name}:{s.st_size}:{s.st_mtime_ns}" for name, s in stats)])
