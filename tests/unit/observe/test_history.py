import pytest

from appliance.core.tally import HOURS_KEPT, MINUTES_KEPT, HourRow, MinuteRow, Past, Tally
from appliance.observe import history as module
from appliance.observe.history import History
from tests.appliance import HandClock

HOUR = 497_222
"""In hours since the epoch."""


def at_hour(**facts):
    return HandClock(wall_us=HOUR * 3_600_000_000), Tally(**facts)


def written(it):
    """Every row that waits, as the store would have them after a restart."""
    it.close_minute()
    rows, hours = it.take(100_000), {}
    for row in rows:
        at = row.at // 60, row.model
        hour = hours.setdefault(at, HourRow(*at, Tally(), Tally()))
        hour.tally.join(row.tally)
        hour.highest.raise_to(row.tally)
    return Past(rows, list(hours.values()))


def test_a_day_shows_what_happened_minutes_ago_and_its_highest_minute():
    clock, _ = at_hour()
    it = History(clock)
    for tokens in (600, 6_000, 1_200):
        it.add("m", Tally(calls=1, tokens=tokens, documents=2))
        clock.advance(60)
    clock.advance(60)
    points, step_s = it.points(86_400)
    assert (len(points), step_s) == (25, 3600)
    assert [point.tokens for point in points] == [0] * 24 + [7_800 / 240]
    assert it.highest(86_400).tokens == 100
    assert it.highest(86_400).documents == 2 / 60
    points, step_s = it.points(3600)
    assert (len(points), step_s) == (61, 60)
    assert [point.tokens for point in points[-5:]] == [10, 100, 20, 0, 0]
    points, step_s = it.points(2_592_000)
    assert (len(points), step_s) == (91, 28_800)
    assert points[-1].tokens > 0


def test_a_call_in_the_first_second_of_an_hour_is_no_rate_of_an_hour():
    clock, one = at_hour(calls=1, tokens=6_000)
    it = History(clock)
    it.add("m", one)
    assert it.points(86_400)[0][-1].tokens == 100
    assert it.points(3600)[0][-1].tokens == 6_000


def test_what_an_earlier_process_counted_is_gone_on_with():
    clock, one = at_hour(calls=1, tokens=60, refused=1, free=1)
    before = History(clock)
    for _ in range(90):
        before.add("m", one)
        clock.advance(60)
    after = History(clock, written(before))
    assert after.points(3600) == before.points(3600)
    assert after.points(86_400) == before.points(86_400)
    assert after.highest(86_400) == before.highest(86_400)
    assert after.points(86_400, "m") == before.points(86_400, "m")
    assert after.highest(3600, "m") == before.highest(3600)
    assert [point.calls for point in after.points(3600)[0]] == [1 / 60] * 60 + [0]
    after.add("m", one)
    [*_, hour, running] = after.points(86_400)[0]
    assert (hour.calls, running.calls) == (60 / 3600, 31 / 1800)


def test_a_minute_in_which_a_process_ends_and_the_next_begins_is_one_minute():
    clock, one = at_hour(tokens=30)
    clock.advance(20)
    before = History(clock)
    before.add("m", one)
    clock.advance(5)
    after = History(clock, written(before))
    after.add("m", one)
    clock.advance(60)
    assert after.points(3600)[0][-2].tokens == 1
    assert after.highest(86_400).tokens == 1


def test_a_clock_that_is_set_back_changes_nothing_that_was_counted():
    clock, one = at_hour(calls=60)
    it = History(clock)
    for step_s in (0, -1800, -40 * 86_400, 0):
        clock.wall += step_s * 1_000_000
        it.add("m", one)
        clock.advance(60)
    assert [point.calls for point in it.points(3600)[0][-6:]] == [0, 1, 1, 1, 1, 0]
    rows = [row.at for row in written(it).minutes if not row.model]
    assert rows == [HOUR * 60 + n for n in range(4)]


def test_the_next_process_goes_on_where_a_history_ends_that_is_ahead_of_its_clock():
    clock, one = at_hour(calls=60)
    before = History(clock)
    for _ in range(3):
        before.add("m", one)
        clock.advance(60)
    past = written(before)
    clock.wall -= 2 * 3600 * 1_000_000
    after = History(clock, past)
    after.add("m", one)
    assert [point.calls for point in after.points(3600)[0][-3:-1]] == [1, 1]
    assert written(after).minutes[0].at == past.minutes[-1].at


def test_a_history_far_ahead_of_the_clock_waits_and_is_forgotten_once_the_clock_is_trusted():
    clock, one = at_hour(calls=60)
    ahead = HOUR * 60 + 400 * 1440
    past = Past(
        [MinuteRow(HOUR * 60 - 5, "", one), MinuteRow(ahead, "", one)],
        [HourRow(HOUR - 1, "", one, one), HourRow(ahead // 60, "", one, one)],
    )
    it = History(clock, past)
    assert sum(point.calls for point in it.points(3600)[0]) == 1
    assert it.trusted_minute() is None
    it.add("m", Tally(calls=60))
    clock.advance(3600)
    assert it.trusted_minute() == HOUR * 60 + 60
    it.add("m", Tally(calls=60))
    clock.advance(60)
    [_, row] = it.take(2)
    assert row.at == HOUR * 60
    assert list(it._steps[""].minutes) == [HOUR * 60 + 60]
    assert list(it._steps[""].hours) == [HOUR - 1, HOUR, HOUR + 1]


def test_a_year_of_minutes_takes_no_more_than_is_kept(monkeypatch):
    monkeypatch.setattr(module, "WAITING_MAX", 100)
    clock, one = at_hour(calls=1)
    it = History(clock)
    for number in range(50_000):
        it.add(f"m{number % 3}", one)
        clock.advance(60)
    assert len(it.take(100_000)) == 100
    assert repr(it) == "<History [3 models | 0 rows wait]>"
    assert len(it._steps[""].minutes) <= 2 * MINUTES_KEPT
    assert len(it._steps[""].hours) == HOURS_KEPT


def test_models_beyond_the_bound_share_a_row_and_no_model_counts_for_all_alone():
    clock, one = at_hour(refused=1)
    it = History(clock)
    it.add("", one)
    for number in range(300):
        it.add(f"m{number}", one)
    clock.advance(60)
    rows = {row.model: row.tally.refused for row in it.take(1000)}
    assert (len(rows), rows[""], rows["other"]) == (52, 301, 250)


def test_a_model_that_nobody_called_for_thirty_days_makes_room_for_another():
    clock, one = at_hour(calls=1)
    it = History(clock)
    for number in range(200):
        it.add(f"m{number}", one)
        clock.advance(24 * 3600)
        it.add(f"m{number}", one)
        clock.advance(60)
    assert len(it._steps) <= 52
    assert it.points(2_592_000, "m0")[0] == it.points(2_592_000, "nobody")[0]
    assert any(point.calls for point in it.points(2_592_000, "m199")[0])


@pytest.mark.parametrize(("waiting", "kept"), [(0, 3), (9_999, 1)])
def test_rows_that_could_not_be_written_wait_again_at_the_front(waiting, kept):
    clock, one = at_hour(calls=1)
    it = History(clock)
    for _ in range(3):
        it.add("", one)
        clock.advance(60)
    taken = it.take(10)
    for _ in range(waiting):
        it.add("", one)
        clock.advance(60)
    it.give_back(taken)
    again = it.take(kept)
    assert [row.at for row in again] == [row.at for row in taken[-kept:]]
