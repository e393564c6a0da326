from appliance.core.flow import Flow
from appliance.ledger import flows
from appliance.ledger.flows import Flows


def charge(key, model, units, amount, tier="realtime"):
    return key, "revenue", "charge", tier, model, units, amount


def test_charges_are_summed_by_model_and_tier_and_by_key_and_the_rest_by_kind():
    found = Flows()
    found.add([charge("a", "m", 3, 30), charge("b", "m", 1, 10, "batch")])
    found.add([charge("a", "n", 2, 2**60), ("issued", "a", "grant", None, None, None, 5)])
    found.add([("revenue", "a", "refund", None, None, None, 30)] * 2)
    read = found.read(left=9)
    assert read.charges == {
        ("m", "realtime"): Flow(1, 3, 30),
        ("m", "batch"): Flow(1, 1, 10),
        ("n", "realtime"): Flow(1, 2, 2**60),
    }
    assert read.keys == {"a": Flow(2, 5, 2**60 + 30), "b": Flow(1, 1, 10)}
    assert read.others == {"grant": Flow(1, 0, 5), "refund": Flow(2, 0, 60)}
    assert read.left == 9


def test_what_was_read_does_not_change():
    found = Flows()
    before = found.read(left=0)
    found.add([charge("a", "m", 1, 1)])
    assert before.charges == before.keys == before.others == {}


def test_names_beyond_the_bound_share_one_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(flows, "NAMES_MAX", 2)
    found = Flows()
    found.add([charge(f"k{n % 4}", f"m{n % 4}", 1, 1) for n in range(40)])
    read = found.read(left=0)
    assert set(read.keys) == {"k0", "k1", "other"}
    assert {model for model, _ in read.charges} == {"m0", "m1", "other"}
    assert sum(each.amount for each in read.keys.values()) == 40
    assert read.charges["other", "realtime"] == Flow(20, 20, 20)
