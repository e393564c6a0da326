"""The bench against a started server with the fake engine: what it counts is what was answered."""

import json

import pytest

from appliance.machine import cores

LOADS = ("--seconds", "0.3", "--rounds", "2", "--workloads", "short-1,b32x64,rerank-1")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    from tests.server import Server

    running = Server(tmp_path_factory.mktemp("bench") / "data").start("--fake")
    yield running
    running.close()


def test_the_bench_measures_its_own_server_with_a_key_that_it_revokes(fake):
    done = fake.cli("bench", *LOADS, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    results = {each["workload"]: each for each in document["results"]}
    assert list(results) == ["short-1", "b32x64", "rerank-1"]
    assert document["setting"]["cores"] == cores()
    assert document["setting"]["processor"]
    assert document["setting"]["features"]
    for result in results.values():
        ours = result["ours"]
        assert ours["errors"] == 0
        assert ours["requests_per_s"] > 0
        assert 0 < ours["p50_ms"] <= ours["p95_ms"] <= ours["p99_ms"]
    short = results["short-1"]["ours"]
    assert short["tokens_per_s"] == pytest.approx(16 * short["requests_per_s"], rel=0.01)
    with fake.admin() as admin:
        keys = [key for key in admin.get("/keys").json()["data"] if key["name"] == "bench"]
    assert keys
    assert all(key["revoked"] for key in keys)
    assert sum(float(key["spent_today"]) for key in keys) > 0


def test_a_peer_is_measured_in_turn_and_compared_by_ratio(fake):
    key = str(fake.mint()["key"])
    done = fake.cli(
        "bench",
        "--url",
        fake.url,
        "--key",
        key,
        "--against",
        fake.url,
        "--against-key",
        key,
        "--workloads",
        "short-1",
        "--seconds",
        "0.5",
        "--rounds",
        "3",
        "--rest",
        "0.01",
        "--json",
    )
    [result] = json.loads(done.stdout)["results"]
    assert result["rounds"] == 3
    assert result["theirs"]["errors"] == 0
    assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]
    assert 0.2 < result["ratio"] < 5


def test_refused_calls_are_counted_as_errors_with_the_first_reason(fake):
    key = str(fake.mint(credit="0")["key"])
    done = fake.cli("bench", "--url", fake.url, "--key", key, *LOADS[:4], "--workloads", "short-1")
    assert done.returncode == 0
    assert "errors: 402" in done.stdout
    assert "0.00 req/s" in done.stdout


def test_an_unknown_workload_is_wrong_usage(fake):
    done = fake.cli("bench", "--workloads", "nothing")
    assert done.returncode == 2
    assert "short-1" in done.stderr


def test_without_a_server_the_bench_says_what_to_start(tmp_path):
    from tests.server import Server

    done = Server(tmp_path / "idle").cli("bench")
    assert done.returncode == 1
    assert "no server runs" in done.stderr


def test_the_raw_engine_is_measured_in_the_benchs_own_process(tmp_path):
    from tests.server import Server

    done = Server(tmp_path / "idle").cli(
        "bench", "--engine", "--seconds", "0.3", "--workloads", "short-16", "--json"
    )
    assert done.returncode == 0, done.stderr
    [ceiling] = json.loads(done.stdout)
    assert ceiling["tokens_per_s"] == pytest.approx(16 * ceiling["texts_per_s"], rel=0.01)
    assert ceiling["batch_ms"] > 0
    assert 1 <= ceiling["workers"] * ceiling["threads"] <= cores()
    # Six blocks of 384 x (4 x 384 + 2 x 1536) weights, two operations each.
    assert ceiling["gflops"] == pytest.approx(ceiling["tokens_per_s"] * 21.2e6 / 1e9, rel=0.01)
    assert 0 < ceiling["gflops"] < ceiling["peak_gflops"]


def test_a_run_is_checked_against_an_earlier_one(fake, tmp_path):
    loads = ("--seconds", "0.2", "--rounds", "1", "--workloads", "short-1")
    done = fake.cli("bench", *loads, "--json")
    before = tmp_path / "before.json"
    before.write_text(done.stdout)
    again = fake.cli("bench", *loads, "--check", str(before), "--tolerance", "0.95")
    assert again.returncode == 0, again.stderr
    assert "nothing is slower than at" in again.stderr
    found = json.loads(done.stdout)
    found["results"][0]["ours"]["requests_per_s"] *= 1_000
    before.write_text(json.dumps(found))
    slower = fake.cli("bench", *loads, "--check", str(before))
    assert slower.returncode == 1
    assert "slower: short-1: " in slower.stderr
    before.write_text("{}")
    refused = fake.cli("bench", *loads, "--check", str(before))
    assert refused.returncode == 1
    assert "is not what `gigarouter bench --json` prints" in refused.stderr
    assert "Traceback" not in refused.stderr
