from appliance.core.units import Picocredits
from appliance.observe.meters import RECENT_KEPT, SECONDS_KEPT, CallRecord, Meters
from tests.appliance import HandClock


def ended(**facts):
    return CallRecord(
        **{
            "request_id": "req_1",
            "status": 200,
            "code": "",
            "key": "alice",
            "key_id": "key_1",
            "model": "m",
            "tier": "realtime",
            "tokens": 10,
            "documents": 0,
            "is_charged": facts.get("status", 200) == 200,
            "amount": Picocredits(3),
            "total_ms": 5.0,
            "stages": {"queue": 1.0},
            **facts,
        }
    )


def meters():
    clock = HandClock()
    return Meters(clock, Picocredits(0)), clock


def test_rates_are_of_the_last_whole_seconds():
    found, clock = meters()
    for _ in range(5):
        for _ in range(4):
            found.note(ended())
        found.note(ended(tokens=7, documents=2))
        found.note(ended(status=402, code="insufficient_credit"))
        found.note(ended(is_charged=False))
        clock.advance(1)
    rates = found.rates()
    assert (rates.calls, rates.tokens, rates.documents) == (5, 47, 2)
    assert (rates.errors, rates.free) == (1, 1)
    clock.advance(60)
    assert found.rates().calls == 0


def test_histories_of_seconds_have_a_point_for_each_step_that_is_over():
    found, clock = meters()
    for second in range(120):
        for _ in range(second // 60 + 1):
            found.note(ended())
        clock.advance(1)
    found.note(ended(tokens=10_000))
    points, step_s = found.points(60)
    assert (len(points), step_s) == (60, 1)
    assert [point.calls for point in points] == [2.0] * 60
    assert found.highest(60).tokens == 20
    points, step_s = found.points(900)
    assert (len(points), step_s) == (90, 10)
    assert [point.calls for point in points[-13:]] == [0.0] + [1.0] * 6 + [2.0] * 6
    assert found.highest(900).calls == 2


def test_longer_histories_are_those_of_minutes_and_hours():
    found, _ = meters()
    found.note(ended(tokens=600))
    points, step_s = found.points(86_400)
    assert (len(points), step_s) == (25, 3600)
    assert points[-1].calls > 0
    assert found.highest(86_400).tokens == 10


def test_quantiles_are_values_that_occurred_in_the_last_minute():
    found, clock = meters()
    found.note(ended(total_ms=9999.0, stages={"queue": 9999.0}))
    clock.advance(61)
    for number in range(1, 101):
        found.note(ended(total_ms=float(number), stages={"queue": number / 10}))
    found.note(ended(status=400, stages={}, total_ms=0.1))
    stages = found.stages()
    assert (stages["total"].p50, stages["total"].p95) == (50.0, 95.0)
    assert (stages["queue"].p50, stages["queue"].p95) == (5.0, 9.5)


def test_activity_names_the_busiest_first():
    found, _ = meters()
    for key, calls in (("a", 1), ("b", 3), ("", 5)):
        for _ in range(calls):
            found.note(ended(key=key))
    assert [(each.name, each.calls, each.tokens) for each in found.activity("key")] == [
        ("b", 3, 30),
        ("a", 1, 10),
    ]


def test_the_last_calls_come_newest_first_and_everything_is_bounded():
    found, clock = meters()
    for number in range(3000):
        found.note(ended(request_id=f"req_{number}"))
        clock.advance(1)
    recent = found.recent(3)
    assert [call.request_id for call in recent] == ["req_2999", "req_2998", "req_2997"]
    assert (recent[0].cost, recent[0].tokens, recent[0].status) == ("0.000000000003", 10, 200)
    assert len(found._seconds) <= SECONDS_KEPT + 1
    assert len(found.recent(10_000)) == RECENT_KEPT
    assert found.charged == 9000
    assert found.uptime_s == 3000
    assert repr(found) == "<Meters [200 recent calls]>"


def test_a_minute_of_more_calls_than_are_remembered_is_counted_in_full():
    found, clock = meters()
    for _ in range(70):
        for call in [ended(key="alice")] * 100:
            found.note(call)
        found.note(ended(status=402, code="insufficient_credit", key="bob"))
        clock.advance(1)
        assert len(found._named) <= 61
    [alice, bob] = found.activity("key")
    assert (alice.name, alice.calls, alice.tokens) == ("alice", 6_000, 60_000)
    assert (bob.name, bob.calls, bob.errors) == ("bob", 0, 60)
    [model] = found.activity("model")
    assert (model.calls, model.errors) == (7_000 - 1_000, 60)
    assert found.refusals() == {"402 insufficient_credit": 60}
    clock.advance(61)
    assert (found.activity("key"), found.refusals()) == ([], {})
