from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from appliance.scheduler.eviction import Resident, choose_evictions


def resident(key, size, used, *, may_go=True):
    return Resident(key, size, used, may_go)


def test_nothing_goes_while_there_is_room():
    assert choose_evictions([resident("a", 5, 1)], need=0) == []


def test_those_that_were_not_called_for_longest_go_first():
    here = [resident("new", 5, 9), resident("old", 5, 1), resident("older", 5, 0)]
    assert choose_evictions(here, need=6) == ["older", "old"]


def test_who_may_not_go_stays_and_if_that_is_not_enough_nobody_goes():
    here = [resident("busy", 50, 0, may_go=False), resident("idle", 5, 1)]
    assert choose_evictions(here, need=5) == ["idle"]
    assert choose_evictions(here, need=6) is None


def test_a_large_one_spares_the_small_ones_before_it():
    here = [resident("small", 1, 0), resident("large", 10, 1)]
    assert choose_evictions(here, need=9) == ["large"]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9), st.booleans()), max_size=7),
    st.integers(-5, 80),
)
def test_enough_goes_nothing_in_vain_and_nobody_who_may_not(rows, need):
    here = [resident(n, size, used, may_go=go) for n, (size, used, go) in enumerate(rows)]
    free = [each for each in here if each.may_go]
    chosen = choose_evictions(here, need=need)
    if chosen is None:
        assert sum(each.bytes for each in free) < need
        return
    sizes = {each.key: each.bytes for each in free}
    assert set(chosen) <= set(sizes)
    assert sum(sizes[key] for key in chosen) >= need
    for rest in combinations(chosen, max(0, len(chosen) - 1)):
        if chosen:
            assert sum(sizes[key] for key in rest) < need
