"""The house rules that a machine can count."""

import ast
import re
import tokenize
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINES_MAX, FUNCTION_LINES_MAX = 400, 60

LONGER = {
    "appliance/core/errors.py": (
        600,
        "one list of everything that can go wrong, a leaf a paragraph",
    ),
}
"""Modules that may have more lines, how many, and why."""

ENTRY_POINTS = {
    "appliance.__main__": "python -m appliance",
    "tui.__main__": "python -m tui",
    "appliance.bench.golden": "the check of an engine, as a process of its own",
    "appliance.engine.child": "a model, in a process of its own",
    "appliance.engine.preflight": "screening, as a process of its own",
}
"""Modules that nothing needs to import, and who runs them."""

VAGUE = re.compile(r"utils?|helpers?|common|manager|misc")
MODULES = sorted(
    path for package in ("appliance", "tui") for path in (ROOT / package).rglob("*.py")
)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def comments_of(path: Path) -> dict[int, str]:
    """Comments by line."""
    with path.open("rb") as file:
        return {
            token.start[0]: token.string
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        }


def test_the_modules_of_both_packages_are_looked_at():
    assert len(MODULES) > 150
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == {"appliance", "tui"}


# -- sizes --------------------------------------------------------------------------------------


def test_a_module_can_be_read_at_one_sitting():
    lines = {shown(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    allowed = {name: LONGER.get(name, (LINES_MAX, ""))[0] for name in lines}
    assert {name: count for name, count in lines.items() if count > allowed[name]} == {}


def test_a_module_is_allowed_more_lines_only_while_it_needs_them():
    for name, (_, reason) in LONGER.items():
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > LINES_MAX
        assert len(reason) > 10


def test_a_function_can_be_seen_at_once():
    lines = {
        f"{shown(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES_MAX} == {}


# -- words --------------------------------------------------------------------------------------


def test_a_module_says_what_it_is_for():
    trees = {shown(path): tree_of(path) for path in MODULES}
    assert [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def test_importing_a_leaf_executes_no_branch():
    packages = [path for path in MODULES if path.name == "__init__.py"]
    assert packages
    busy = {
        shown(path): [ast.unparse(n) for n in tree_of(path).body if not isinstance(n, ast.Expr)]
        for path in packages
    }
    assert {name: rest for name, rest in busy.items() if rest} == {}


def test_a_module_is_named_for_one_thing():
    vague = [
        shown(path)
        for path in MODULES
        for part in path.relative_to(ROOT).with_suffix("").parts
        if any(VAGUE.fullmatch(word) for word in part.split("_"))
    ]
    assert vague == []


# -- leftovers ----------------------------------------------------------------------------------


def test_nothing_of_the_work_was_left_behind():
    left = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        left += [
            (shown(path), node.lineno, node.func.id)
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"print", "breakpoint"}
        ]
        left += [(shown(path), word) for word in re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", text)]
    assert left == []


EXEMPTION = re.compile(
    r"#\s*(noqa|type:\s*ignore)(?::\s*|\[)?([A-Za-z0-9, -]*?)\]?(?:\s+(?:-|#)\s+(.+))?$"
)


def unexplained(comments: dict[int, str]) -> list[tuple[int, str]]:
    """Exemptions without a rule or a reason.

    The reason stands behind it, above it, or at the first use of the same rule in the file.
    """
    explained: set[str] = set()
    bad = []
    for line, comment in sorted(comments.items()):
        if "noqa" not in comment and "type: ignore" not in comment:
            continue
        found = EXEMPTION.match(comment)
        _, rule, reason = found.groups() if found else ("", "", "")
        if reason or line - 1 in comments:
            explained.add(rule)
        if not rule or rule not in explained:
            bad.append((line, comment))
    return bad


def test_every_exemption_names_its_rule_and_says_why():
    exempt = [path for path in MODULES if re.search("noqa|type: ignore", path.read_text("utf-8"))]
    assert exempt
    found = {shown(path): unexplained(comments_of(path)) for path in exempt}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_an_exemption_without_a_rule_or_a_reason_is_found():
    bare, plain, good = "# noqa", "# noqa: S101", "# noqa: S101 - checked above"
    assert unexplained({1: bare}) == [(1, bare)]
    assert unexplained({1: plain}) == [(1, plain)]
    assert unexplained({1: good, 5: plain, 9: "# type: ignore"}) == [(9, "# type: ignore")]


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
