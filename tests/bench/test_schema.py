"""The command that calls every operation as the OpenAPI document says: a few operations, a few seconds."""

import pytest
from schemathesis.checks import CHECKS, load_all_checks

from tests.bench import schema
from tests.bench.schema import PHASES, Found
from tests.bench.schema_checks import EXCLUDED
from tests.server import Server


def report(**changed):
    return {
        "operations": {"selected": 2, "tested": 2},
        "phases": {name: {"status": "success"} for name in PHASES},
        "test_cases": {"generated": 1_234, "unique_failures": 0},
        "failures": [],
        "errors": [],
        "running_time": 3.2,
        "seed": 1,
        **changed,
    }


def test_what_is_not_checked_is_a_check_and_has_its_reason():
    load_all_checks()
    assert {each.check for each in EXCLUDED} <= set(CHECKS.get_all_names())
    assert all(len(each.reason) > 40 for each in EXCLUDED)


@pytest.mark.parametrize(
    "changed",
    [
        {"failures": [{"title": "Undocumented status code", "operations": ["GET /x"]}]},
        {"errors": [{"title": "Runtime Error", "count": 1}]},
        {"operations": {"selected": 2, "tested": 1}},
        {"operations": {"selected": 0, "tested": 0}},
        {"phases": {name: {"status": "skipped"} for name in PHASES}},
    ],
    ids=str,
)
def test_a_failure_an_error_and_an_operation_that_was_not_called_are_none_of_them_well(changed):
    assert Found(PHASES, 0, report(), "").holds
    assert not Found(PHASES, 0, report(**changed), "").holds
    assert not Found(PHASES, 1, report(), "").holds
    assert "2 of 2 operations, 1,234 requests in 3 s (seed 1)" in schema.table(
        Found(PHASES, 0, report(), "")
    )


def test_a_few_operations_answer_as_the_document_says(tmp_path):
    server = Server(tmp_path / "data").start("--fake", env=schema.BEHIND_A_PROXY)
    try:
        words = ["--seconds=20", "--examples=5", "--path=^/v1/(tokenize|files.*|key)$"]
        found = schema.run(server, schema.parsed(words))
    finally:
        server.close()
    assert found.holds, found.told
    assert found.report["operations"]["tested"] == 7
    assert found.report["test_cases"]["generated"] > 100
