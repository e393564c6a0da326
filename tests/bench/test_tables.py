"""The commands that hold the appliance to published or promised tables: their arithmetic, in little."""

import math
from collections import Counter

import gguf
import msgspec
import numpy as np
import pytest

from appliance.engine import vectors
from tests import shapes
from tests.bench import catalogue, crowd_cold, stsb, types

PAIRS = """\
A man plays the guitar.,Someone is playing a guitar.,4.8
"A cat, small and grey, sleeps.",The little grey cat is asleep.,4.9
The stock market fell today.,Shares lost value on Monday.,3.6
A woman cuts an onion.,A woman is slicing onions.,4.5
The train leaves at noon.,The train departs at twelve.,4.4
He is reading a book.,He is reading a newspaper.,2.8
A dog runs on the beach.,A dog runs through the snow.,2.2
The child eats an apple.,A boy is eating fruit.,3.2
It rains in London.,The president gave a speech.,0.0
She opened the window.,The bank raised its rates.,0.1
Two men play football.,A recipe for tomato soup.,0.0
The plane has landed.,The aeroplane touched down.,4.7
"""


def test_ranks_are_shared_by_equal_values():
    assert list(stsb.ranks([10, 30, 20])) == [1, 3, 2]
    assert list(stsb.ranks([5, 1, 5, 5, 9])) == [3, 1, 3, 3, 5]


@pytest.mark.parametrize("kind", types.KINDS)
def test_kinds_of_numbers_find_what_is_near(kind):
    unit = vectors.l2_normalise(np.random.default_rng(3).normal(size=(40, 64)).astype("f4"))
    rows = vectors.in_type(unit, kind).astype(np.float64)
    found = types.nearest(types.similarities(rows[:5], rows, kind), 3)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert types.recall(found, [0, 1, 2, 3, 39]) == 0.8
    assert types.agreement(found, found) == 1.0
    assert types.agreement(found, found[:, ::-1] + 100) == 0.0


def test_kinds_of_numbers_are_compared_over_a_server(server, tmp_path):
    (tmp_path / "pairs.csv").write_text(PAIRS)
    rows = types.table(
        server.url, str(server.mint("types")["key"]), stsb.read(tmp_path / "pairs.csv"), 3
    )
    assert [row[0] for row in rows] == list(types.KINDS)
    assert all(found >= 0.8 and same > 0.5 for _, found, same, _ in rows)


def test_the_rank_correlation_is_spearmans():
    # By hand: 1 - 6 * (1 + 1 + 0 + 1 + 1) / (5 * 24), and with ties Pearson's of the shared ranks.
    assert stsb.spearman([1, 2, 3, 4, 5], [2, 1, 3, 5, 4]) == pytest.approx(0.8)
    assert stsb.spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    assert stsb.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(stsb.spearman([1, 1, 1], [1, 2, 3]))


def test_the_published_score_is_held_to_a_twentieth():
    assert stsb.holds(82.03 + 0.049)
    assert stsb.holds(82.03 - 0.049)
    assert not stsb.holds(82.09)
    assert not stsb.holds(float("nan"))


def test_a_dozen_pairs_are_scored_through_a_real_server(server, tmp_path, capsys):
    data = tmp_path / "pairs.csv"
    data.write_text(PAIRS)
    key = str(server.mint("stsb")["key"])
    # A dozen pairs of our own have another score than the benchmark's.
    assert stsb.main(["--data", str(data), "--url", server.url, "--key", key]) == 1
    said = capsys.readouterr().out
    assert "12 pairs: Spearman's correlation" in said
    assert "within 0.05: NO" in said
    assert stsb.score(server.url, key, stsb.read(data)) > 85


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a,b\n", "line 1: two sentences and a number, not 2 fields"),
        ("a,b,3\na,b,alike\n", "line 2"),
        ("a,b,3\n", "1 pairs are too few"),
    ],
)
def test_a_file_that_is_not_the_benchmark_is_one_line(tmp_path, capsys, content, reason):
    data = tmp_path / "pairs.csv"
    data.write_text(content)
    assert stsb.main(["--data", str(data)]) == 1
    assert reason in capsys.readouterr().err
    assert stsb.main(["--data", str(tmp_path / "none.csv")]) == 1


# -- crowd, cold -----------------------------------------------------------------------------------


def test_the_starter_is_measured_alone_and_beside_calls_of_models_that_nobody_tried(make_server):
    server = make_server()
    server.data_dir.mkdir(mode=0o700)
    models = crowd_cold.write_models(server.data_dir, 4, small=True)
    server.start()
    rounds = crowd_cold.measure(server, models, clients=2, rounds=2, seconds=4)
    assert [bool(one.alone and one.beside) for one in rounds] == [True, True]
    ends = sum((one.ends for one in rounds), Counter())
    assert ends["200"] > 0
    assert set(ends) <= {"200", "503 model_warming"}
    said = crowd_cold.table(rounds)
    assert "times p95 alone" in said
    assert "200" in said
    tried = {name for name, _ in models if f"{name} was tried: " in server.log.read_text()}
    assert tried == {name for name, _ in models}


def test_the_goal_is_the_median_of_the_rounds():
    def a_round(beside):
        return crowd_cold.Round([10.0] * 20, [beside] * 20)

    assert crowd_cold.holds([a_round(15.0), a_round(14.0), a_round(90.0)])
    assert not crowd_cold.holds([a_round(15.1), a_round(15.1), a_round(1.0)])
    assert not crowd_cold.holds([crowd_cold.Round([10.0], [])])


# -- catalogue -------------------------------------------------------------------------------------

PULLED = {spec.id: spec for spec in catalogue.entries() if spec.entry.source is not None}
SMALL = shapes.Shape("xlmr", 2, 64, 128, 2, 300, 8192, "cls")
BERT = shapes.Shape("bert", 2, 64, 128, 2, 300, 512, "rank")


def test_every_entry_that_is_pulled_has_a_shape():
    assert set(shapes.SHAPES) == set(PULLED)
    assert len(PULLED) + 2 == len(catalogue.entries())


@pytest.mark.parametrize("name", PULLED)
def test_a_shape_is_the_entrys(name):
    entry, shape = PULLED[name].entry, shapes.SHAPES[name]
    assert shape.architecture == entry.architecture
    assert shape.pooling == entry.pooling
    assert shape.width == (entry.dimensions or shape.width)
    assert shape.context >= entry.max_input_tokens
    is_converted = entry.source.format == "safetensors"
    assert is_converted or shape.quantization == entry.quantization
    params = sum(math.prod(tensor.shape) for tensor in shapes.tensors(shape))
    assert params == pytest.approx(entry.params, rel=0.02)
    if entry.source.bytes is not None:
        # Without the header, in which a vocabulary takes some megabytes.
        header = 40 * shape.vocabulary
        assert entry.source.bytes - header < shapes.size_of(shape) < 1.005 * entry.source.bytes


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K", "Q6_K"])
def test_drawn_numbers_are_small_and_finite_whatever_holds_them(kind):
    kind = gguf.GGMLQuantizationType[kind]
    tensor = shapes.Tensor("blk.0.ffn_up.weight", (600, 1024), kind)
    stored = shapes.drawn(tensor, 1)
    assert stored.nbytes == tensor.bytes
    numbers = gguf.quants.dequantize(
        stored.view(np.float16) if kind.name == "F16" else stored, kind
    ).astype(np.float32)
    assert numbers.shape == (600, 1024)
    assert np.isfinite(numbers).all()
    assert numbers.std() == pytest.approx(1024**-0.5, rel=0.1)
    assert abs(numbers.mean()) < 0.01 * 1024**-0.5 + 1e-3
    assert not np.array_equal(numbers[0], numbers[1])


@pytest.mark.parametrize(
    "name", ["BAAI/bge-m3", "cross-encoder/ms-marco-MiniLM-L6-v2"], ids=["gguf", "safetensors"]
)
def test_an_entry_is_pulled_tried_loaded_called_and_measured(tmp_path, name):
    shape = SMALL if PULLED[name].entry.source.format == "gguf" else BERT
    spec = PULLED[name]
    promised = msgspec.structs.replace(
        spec.entry, max_input_tokens=shape.context, dimensions=shape.width
    )
    row = catalogue.walk(
        msgspec.structs.replace(spec, entry=promised), tmp_path, seconds=120, shape=shape
    )
    assert row.why_not is None
    assert row.long_tokens == shape.context
    assert min(row.disk, row.estimated, row.measured) > 0
    assert min(row.pull_s, row.trial_s, row.load_s, row.short, row.long) > 0


def test_an_entry_that_takes_too_long_or_does_not_fit_says_so(tmp_path, monkeypatch):
    spec = PULLED["BAAI/bge-m3"]
    (tmp_path / "slow").mkdir()
    row = catalogue.walk(spec, tmp_path / "slow", seconds=0, shape=SMALL)
    assert row.why_not.endswith("takes longer than the time for an entry")
    monkeypatch.setattr(catalogue, "memory_free", lambda: 1 << 20)
    (tmp_path / "large").mkdir()
    row = catalogue.walk(spec, tmp_path / "large", seconds=60, shape=SMALL)
    assert "of memory, 0.00 GB are free" in row.why_not
    assert row.disk > 0


def test_a_walk_goes_on_where_it_ended_and_walks_again_what_is_named(tmp_path, capsys):
    def one(spec, folder, *, seconds):
        walked.append(spec.id)
        if len(walked) == 3:
            raise KeyboardInterrupt
        return catalogue.Row(spec.id, None if len(walked) % 2 else "needs 9.00 GB of memory")

    walked, out = [], tmp_path / "rows.jsonl"
    ids = [spec.id for spec in catalogue.entries()]
    with pytest.raises(KeyboardInterrupt):
        catalogue.main(["--out", str(out)], one=one)
    assert [row.id for row in catalogue.read(out)] == ids[:2]
    assert catalogue.main(["--out", str(out)], one=one) == 0
    assert walked == [*ids[:3], *ids[2:]]
    assert {row.id for row in catalogue.read(out)} == set(ids)
    assert catalogue.main(["--out", str(out), "--only", ids[0]], one=one) == 0
    assert walked[-1] == ids[0]
    assert len(catalogue.read(out)) == len(ids)
    assert catalogue.main(["--only", "none"]) == 2
    assert "none is no entry of the catalogue" in capsys.readouterr().err


def test_the_table_says_what_was_found_and_why_not():
    rows = [
        catalogue.Row("a", None, 10**9, 2 * 10**9, 15 * 10**8, 1.0, 2.04, 0.5, 123.4, 4567.8, 512),
        catalogue.Row("long-name", "needs 9.00 GB of memory"),
    ]
    head, first, second = catalogue.table(rows).splitlines()
    assert head.split()[:3] == ["model", "disk", "estimate"]
    assert first.split() == [
        "a",
        "1.00",
        "GB",
        "2.00",
        "GB",
        "1.50",
        "GB",
        "2.0",
        "0.5",
        "123",
        "4,568",
        "yes",
    ]
    assert second.split("  ")[-1] == "no: needs 9.00 GB of memory"
    assert head.index("serves here") == first.index("yes") == second.index("no:")
