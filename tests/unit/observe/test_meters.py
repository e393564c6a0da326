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
            "is_documents": False,
            "units": 10,
            "tokens": 10,
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
        found.note(ended(is_documents=True, units=2))
        found.note(ended(status=402, code="insufficient_credit", units=0))
        clock.advance(1)
    rates = found.rates()
    assert (rates.calls, rates.tokens, rates.documents, rates.errors) == (6, 40, 2, 1)
    clock.advance(60)
    assert found.rates().calls == 0


def test_histories_have_a_point_for_each_step_the_newest_last():
    found, clock = meters()
    for second in range(120):
        for _ in range(second // 60 + 1):
            found.note(ended())
        clock.advance(1)
    points, step_s = found.history(60)
    assert (len(points), step_s) == (60, 1)
    assert [point.calls for point in points] == [2.0] * 59 + [0.0]
    points, step_s = found.history(900)
    assert (len(points), step_s) == (90, 10)
    assert [point.calls for point in points[-13:]] == [1.0] * 6 + [2.0] * 6 + [0.0]
    points, step_s = found.history(86_400)
    assert (len(points), step_s) == (90, 960)
    assert points[-1].calls * 960 == 180


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
    assert (recent[0].cost, recent[0].units, recent[0].status) == ("0.000000000003", 10, 200)
    assert len(found._seconds.buckets) <= SECONDS_KEPT
    assert len(found.recent(10_000)) == RECENT_KEPT
    assert found.charged == 9000
    assert found.uptime_s == 3000
    assert repr(found) == "<Meters [200 recent calls]>"


def test_a_minute_of_more_calls_than_are_remembered_is_counted_in_full():
    found, clock = meters()
    for _ in range(70):
        for call in [ended(key="alice")] * 100:
            found.note(call)
        found.note(ended(status=402, code="insufficient_credit", key="bob", model="", units=0))
        clock.advance(1)
        assert len(found._named) <= 61
    [alice, bob] = found.activity("key")
    assert (alice.name, alice.calls, alice.tokens) == ("alice", 6_000, 60_000)
    assert (bob.name, bob.calls, bob.errors) == ("bob", 60, 60)
    assert found.refusals() == {"402 insufficient_credit": 60}
    clock.advance(61)
    assert (found.activity("key"), found.refusals()) == ([], {})
