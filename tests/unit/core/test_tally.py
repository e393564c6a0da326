from appliance.core.tally import FIGURES, Tally


def test_figures_are_added_one_by_one_and_the_highest_of_each_is_taken():
    assert FIGURES == ("calls", "tokens", "documents", "refused", "free")
    tally = Tally(1, 20, 3, 4, 5)
    tally.join(Tally(2, 1, 1, 1, 1))
    assert tally.values() == (3, 21, 4, 5, 6)
    tally.raise_to(Tally(9, 1, 9, 1, 9))
    assert tally.values() == (9, 21, 9, 5, 9)
