"""The bench of batches, small: its figures are of what it proved."""

from tests.bench import batches


def test_a_small_batch_is_killed_and_its_figures_are_whole(tmp_path):
    found = batches.measure(tmp_path, lines=1_000, kills=1, calls=20, fake=True)
    assert (found["kills"], found["charges"], found["refunded"]) == (1, 980, 0)
    assert found["lines_s"] > 0
    assert found["alone"] > 0
    assert found["beside"] > 0
