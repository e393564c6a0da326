"""The commands that hold the appliance to published or promised tables: their arithmetic, in little."""

import math
from collections import Counter

import pytest

from tests.bench import crowd_cold, stsb

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
    assert [len(one.alone) > 5 and len(one.beside) > 5 for one in rounds] == [True, True]
    ends = sum((one.ends for one in rounds), Counter())
    assert ends["200"] > 0
    assert set(ends) <= {"200", "503 model_warming"}
    said = crowd_cold.table(rounds)
    assert "times p95 alone" in said
    assert "200" in said
    tried = {path.name.partition(".")[0] for path in server.data_dir.glob("models/*.verdict.json")}
    assert tried == {name for name, _ in models}


def test_the_goal_is_the_median_of_the_rounds():
    def a_round(beside):
        return crowd_cold.Round([10.0] * 20, [beside] * 20)

    assert crowd_cold.holds([a_round(15.0), a_round(14.0), a_round(90.0)])
    assert not crowd_cold.holds([a_round(15.1), a_round(15.1), a_round(1.0)])
    assert not crowd_cold.holds([crowd_cold.Round([10.0], [])])
