"""The table of clients fits the scripts, the packages that are installed, and itself."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.clients.environments import HERE, NODE
from tests.clients.table import CLIENTS, KNOWN, Client


def script(client: Client) -> Path:
    return HERE / ("node" if client.environment in NODE else "python") / client.script


def pinned(environment: str) -> dict[str, str]:
    if environment in NODE:
        found = json.loads((NODE[environment] / "package.json").read_text("utf-8"))
        return dict(found["dependencies"])
    lines = (HERE / f"requirements/{environment}.txt").read_text("utf-8").split()
    return {
        name.partition("[")[0]: version for name, _, version in (x.partition("==") for x in lines)
    }


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_is_tried_by_its_script_in_a_version_that_is_fixed(client: Client) -> None:
    assert f'client("{client.name}")' in script(client).read_text("utf-8")
    assert re.fullmatch(r"\d+(\.\d+)+", pinned(client.environment)[client.package])


def test_no_two_rows_have_the_same_name() -> None:
    assert [
        name for name, count in Counter(each.name for each in CLIENTS).items() if count > 1
    ] == []


def test_every_script_has_a_row() -> None:
    scripts = {path.name for name in ("python", "node") for path in (HERE / name).iterdir()}
    helpers = {"check.py", "check.mjs", "__pycache__"}
    assert scripts - helpers == {each.script for each in CLIENTS}


def test_npm_installs_what_its_lock_says_and_the_lock_names_no_index() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text("utf-8"))
    wanted = pinned("node")
    assert lock["packages"][""]["dependencies"] == wanted
    for name, version in wanted.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    assert [name for name, each in lock["packages"].items() if "resolved" in each] == []


def test_what_may_fail_is_a_step_of_a_row_and_has_a_reason() -> None:
    for step, reason in KNOWN.items():
        [client] = [each for each in CLIENTS if step.startswith(f"{each.name}: ")]
        name = step.removeprefix(f"{client.name}: ")
        assert name.split(",")[0] in script(client).read_text("utf-8"), step
        assert len(reason) > 20
