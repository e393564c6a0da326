from appliance.core.tally import Tally
from appliance.observe.steps import Steps


def test_a_minute_is_added_to_its_hour_which_knows_its_highest_minute():
    it = Steps()
    it.close("m", 120, Tally(calls=2, tokens=5))
    it.close("m", 120, Tally(calls=2))
    it.close("m", 121, Tally(calls=1, tokens=9))
    assert it.within(3600) == [
        (7200, Tally(calls=4, tokens=5)),
        (7260, Tally(calls=1, tokens=9)),
    ]
    assert it.within(86_400) == [(7200, Tally(calls=5, tokens=14))]
    assert it.highest(86_400, 0, 7200) == Tally(calls=4, tokens=9)
    assert it.highest(3600, 7201, 7260) == Tally(calls=1, tokens=9)
    assert it.highest(86_400, 7201, 9999) == Tally()


def test_steps_ahead_of_a_clock_that_is_trusted_and_those_too_old_are_forgotten():
    it = Steps()
    for at in (10, 120, 500):
        it.close("m", at, Tally(calls=1))
    it.forget(None)
    assert repr(it) == "<Steps [3 minutes, 3 hours]>"
    it.forget(130)
    assert (list(it.minutes), list(it.hours)) == ([120], [0, 2])
