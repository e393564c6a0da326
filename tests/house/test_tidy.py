"""The house rules that a machine can count."""

import ast
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES_MAX, FUNCTION_LINES_MAX = 400, 60

LONGER = {
    "appliance/core/errors.py": (
        500,
        "one list of everything that can go wrong, a leaf a paragraph",
    ),
}
"""Modules that may have more lines, how many, and why."""

ENTRY_POINTS = {
    "appliance.__main__": "python -m appliance",
    "tui.__main__": "python -m tui",
    "appliance.engine.preflight": "screening, as a process of its own",
}
"""Modules that nothing needs to import, and who runs them."""

VAGUE = re.compile(r"utils?|helpers?|common|manager|misc")
MODULES = sorted(
    path for package in ("appliance", "tui") for path in (ROOT / package).rglob("*.py")
)
by_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def comments_of(path: Path) -> dict[int, str]:
    """Comments by line."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    return {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}


# -- sizes --------------------------------------------------------------------------------------


@by_module
def test_a_module_can_be_read_at_one_sitting(path):
    allowed, _ = LONGER.get(str(path.relative_to(ROOT)), (LINES_MAX, ""))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= allowed


def test_a_module_is_allowed_more_lines_only_while_it_needs_them():
    for name, (_, reason) in LONGER.items():
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > LINES_MAX
        assert len(reason) > 10


@by_module
def test_a_function_can_be_seen_at_once(path):
    functions = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions}
    assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES_MAX} == {}


# -- words --------------------------------------------------------------------------------------


@by_module
def test_a_module_says_what_it_is_for(path):
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree)


@by_module
def test_importing_a_leaf_executes_no_branch(path):
    if path.name == "__init__.py":
        rest = [node for node in tree_of(path).body if not isinstance(node, ast.Expr)]
        assert rest == []
    assert path.suffix == ".py"


@by_module
def test_a_module_is_named_for_one_thing(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    assert [part for part in parts if any(VAGUE.fullmatch(word) for word in part.split("_"))] == []


# -- leftovers ----------------------------------------------------------------------------------


@by_module
def test_nothing_of_the_work_was_left_behind(path):
    calls = {
        node.func.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls & {"print", "breakpoint"} == set()
    assert re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", path.read_text(encoding="utf-8")) == []


EXEMPTION = re.compile(
    r"#\s*(noqa|type:\s*ignore)(?::\s*|\[)?([A-Za-z0-9, -]*?)\]?(?:\s+(?:-|#)\s+(.+))?$"
)


@by_module
def test_every_exemption_names_its_rule_and_says_why(path):
    """The reason stands behind it, above it, or at the first use of the same rule in the file."""
    comments = comments_of(path)
    explained: set[str] = set()
    bad = []
    for line, comment in sorted(comments.items()):
        if "noqa" not in comment and "type: ignore" not in comment:
            continue
        found = EXEMPTION.match(comment)
        assert found, (line, comment)
        _, rule, reason = found.groups()
        if reason or line - 1 in comments:
            explained.add(rule)
        if not rule or rule not in explained:
            bad.append((line, comment))
    assert bad == []


def test_the_formatter_has_the_last_word():
    skips = [
        p
        for p in ROOT.rglob("*.py")
        if ".venv" not in p.parts and "# fmt" + ":" in p.read_text("utf-8")
    ]
    assert skips == []


def test_the_projects_own_exemptions_say_why():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("ignore = [") + 1
    listed = lines[start : lines.index("]", start)]
    assert listed
    assert [line for line in listed if "#" not in line] == []
    rules = tomllib.loads("\n".join(lines))["tool"]["ruff"]["lint"]["ignore"]
    assert len(rules) == len(listed)


# -- nobody's modules ---------------------------------------------------------------------------


def imported_by(path: Path) -> set[str]:
    """Every name that a module's imports could mean, lazy ones included."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the staircase"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_is_used_by_another_one():
    used = {name for path in MODULES for name in imported_by(path) if name != name_of(path)}
    unused = {name_of(p) for p in MODULES if p.name != "__init__.py"} - used
    assert unused - set(ENTRY_POINTS) == set()


def test_every_unit_test_stands_where_its_module_does():
    """tests/unit/ledger/test_ledger_table.py is about appliance/ledger/ledger.py."""
    package, unit = ROOT / "appliance", ROOT / "tests/unit"
    lost = []
    for path in unit.rglob("test_*.py"):
        words = path.stem.removeprefix("test_").split("_")
        names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
        folder = package / path.parent.relative_to(unit)
        if not any((folder / f"{n}.py").exists() or (folder / n).is_dir() for n in names):
            lost.append(str(path.relative_to(ROOT)))
    assert lost == []
