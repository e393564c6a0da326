"""Rows of texts that come again, in as many bytes as were given."""

import threading

import numpy as np
import pytest

from appliance.scheduler.cache import ENTRY_BYTES, VectorCache

ROW_BYTES = 4 * 16 + ENTRY_BYTES


def row(value):
    return np.full(16, value, np.float32)


def digest(number):
    return number.to_bytes(16, "little")


def test_without_memory_nothing_is_kept():
    cache = VectorCache(0)
    cache.keep(1, digest(1), row(1))
    assert cache.find(1, digest(1)) is None
    assert repr(cache) == "<VectorCache [0 rows | 0/0 bytes]>"


def test_a_row_is_found_by_its_load_and_its_content():
    cache = VectorCache(1_000_000)
    cache.keep(1, digest(1), row(1))
    np.testing.assert_array_equal(cache.find(1, digest(1)), row(1))
    assert cache.find(2, digest(1)) is None
    assert cache.find(1, digest(2)) is None


def test_a_kept_row_is_a_copy_that_holds_on_to_no_larger_matrix():
    cache, matrix = VectorCache(1_000_000), np.ones((100, 16), np.float32)
    cache.keep(1, digest(1), matrix[5])
    matrix[:] = 0
    found = cache.find(1, digest(1))
    assert found.base is None
    np.testing.assert_array_equal(found, row(1))


def test_it_never_has_more_bytes_than_it_was_given():
    cache = VectorCache(10 * ROW_BYTES)
    for number in range(100):
        cache.keep(1, digest(number), row(number))
        kept = min(number + 1, 10)
        assert repr(cache) == (
            f"<VectorCache [{kept} rows | {kept * ROW_BYTES}/{10 * ROW_BYTES} bytes]>"
        )
    found = [number for number in range(100) if cache.find(1, digest(number)) is not None]
    assert found == list(range(90, 100))


def test_what_was_used_last_stays_longest():
    cache = VectorCache(3 * ROW_BYTES)
    for number in range(3):
        cache.keep(1, digest(number), row(number))
    assert cache.find(1, digest(0)) is not None
    cache.keep(1, digest(3), row(3))
    kept = [number for number in range(4) if cache.find(1, digest(number)) is not None]
    assert kept == [0, 2, 3]


def test_keeping_a_row_twice_counts_it_once():
    cache = VectorCache(10 * ROW_BYTES)
    for _ in range(5):
        cache.keep(1, digest(1), row(1))
    assert repr(cache) == f"<VectorCache [1 rows | {ROW_BYTES}/{10 * ROW_BYTES} bytes]>"


def test_a_row_larger_than_everything_is_not_kept():
    cache = VectorCache(ROW_BYTES - 1)
    cache.keep(1, digest(1), row(1))
    assert cache.find(1, digest(1)) is None
    assert repr(cache) == f"<VectorCache [0 rows | 0/{ROW_BYTES - 1} bytes]>"


@pytest.mark.parametrize("threads", [4])
def test_its_books_are_right_whoever_uses_it_at_the_same_time(threads):
    cache = VectorCache(10 * ROW_BYTES)

    def work(seed):
        random = np.random.default_rng(seed)
        for number in random.integers(0, 30, 2000).tolist():
            found = cache.find(1, digest(number))
            assert found is None or found[0] == number
            cache.keep(1, digest(number), row(number))

    running = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert f"10 rows | {10 * ROW_BYTES}/" in repr(cache)
