"""Distribution: the source of `gigarouter-engine`: llama-cpp-python with our kernels in it.

Owns what our distribution changes in the binding's own source: its name, the kernels beside it, and
what a wheel carries of what CMake installs. Needs the standard library alone, as `build` does.
"""

import re
import shutil
import tarfile
import tomllib
from pathlib import Path

NAME = "gigarouter-engine"
VERSION = "0.3.36"
"""Of the binding that it carries, whose functions our kernels replace. Kernels that change within a
version of the binding make it a post release."""
BINDING = "llama-cpp-python"
BINDING_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
"""Of the binding's source distribution, which is what is compiled."""
NEEDS = ("typing-extensions>=4.5.0", "numpy>=1.20.0", "diskcache>=5.6.1", "jinja2>=2.11.3")
"""What the binding needs, as its own source says it."""
SOURCES = Path(__file__).parent
SUFFIXES = (".cmake", ".cpp", ".h")
"""Of the files here that are compiled, or say how."""
FOLDER = "gigarouter"
"""Where they lie in the distribution's source."""
SME = ("armv9.2_1", "armv9.2_2")
"""Generations of processors with ARM's Scalable Matrix Extension, which GCC knows since 14."""
EXCLUDED = ("bin/**", "include/**", "lib/**")
"""What llama.cpp's own rules install a second time, for programs in C."""


class UnknownSource(Exception):
    """The binding's source is not what we change; the message says where it differs."""


def binding_version() -> str:
    """Return the version of the binding that this version of the engine carries."""
    return re.sub(r"\.post\d+$", "", VERSION)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the binding's source distribution and make it ours; return the folder to build.

    Raises:
        UnknownSource: the source is not what we change.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    [source] = [path for path in folder.iterdir() if (path / "pyproject.toml").is_file()]
    shutil.rmtree(source / ".git", ignore_errors=True)  # more than half of its size
    _put_kernels(source)
    _rename(source)
    # An older compiler knows no SME, and upstream leaves no processor's library out.
    for variant in SME:
        line = f"            ggml_add_cpu_backend_variant({variant} "
        condition = "            if (GIGAROUTER_HAS_SME)\n"
        _guard(source / "vendor/llama.cpp/ggml/src/CMakeLists.txt", line, condition)
    return source


def _put_kernels(source: Path) -> None:
    folder = source / FOLDER
    folder.mkdir()
    for path in SOURCES.iterdir():
        if path.suffix in SUFFIXES:
            shutil.copyfile(path, folder / path.name)
    project = "project(llama_cpp)\n"
    include = f'include("${{CMAKE_CURRENT_SOURCE_DIR}}/{FOLDER}/engine.cmake")\n'
    _replace(source / "CMakeLists.txt", project, project + include)


def _rename(source: Path) -> None:
    file = source / "pyproject.toml"
    needs = tomllib.loads(file.read_text())["project"]["dependencies"]
    if needs != list(NEEDS):
        raise UnknownSource(f"{BINDING} needs {needs}, and {list(NEEDS)} is declared here")
    _replace(file, 'name = "llama_cpp_python"\ndynamic = ["version"]', _named())
    _replace(
        file,
        'description = "Python bindings for the llama.cpp library"',
        f'description = "{BINDING} {binding_version()} with the kernels of gigarouter"',
    )
    _replace(
        file,
        'wheel.py-api = "py3"\n',
        f'wheel.py-api = "py3"\nwheel.exclude = [{_listed(EXCLUDED)}]\n',
    )
    # The version stands in the file itself, as a post release has one of its own.
    text = file.read_text()
    file.write_text(
        re.sub(r"\[tool\.scikit-build\.metadata\.version\]\n(?:[^\[\n].*\n)+", "", text)
    )


def _named() -> str:
    return f'name = "{NAME}"\nversion = "{VERSION}"'


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _guard(file: Path, line: str, condition: str) -> None:
    """Put the one line that begins so under a condition."""
    found = [each for each in file.read_text().splitlines(keepends=True) if each.startswith(line)]
    if len(found) != 1:
        raise UnknownSource(f"{file.name} of {BINDING} has no {line.strip()!r}, or more than one")
    _replace(file, found[0], f"{condition}{found[0]}            endif()\n")


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    if text.count(old) != 1:
        raise UnknownSource(f"{file.name} of {BINDING} has no {old!r}, or more than one")
    file.write_text(text.replace(old, new))
