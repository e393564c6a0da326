"""Money series: what was written to the books since the process began, for Prometheus.

Owns the names. Amounts are picocredits, the books' own unit, and exact: Prometheus keeps doubles,
which hold every whole number up to 2^53 (9,007 credits a series since the start).
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from appliance.core.flow import FlowReading


def collect(flows: FlowReading) -> Iterator[Metric]:
    """Yield the series."""
    by_model = ("model", "tier")
    count = CounterMetricFamily("gigarouter_charges", "Charges.", labels=by_model)
    units = CounterMetricFamily(
        "gigarouter_charged_units", "Tokens or documents that were charged.", labels=by_model
    )
    amount = CounterMetricFamily(
        "gigarouter_charged_picocredits", "What was charged; refunds are left in.", labels=by_model
    )
    for labels, flow in flows.charges.items():
        count.add_metric(labels, flow.transfers)
        units.add_metric(labels, flow.units)
        amount.add_metric(labels, flow.amount)
    keys = CounterMetricFamily(
        "gigarouter_key_charged_picocredits", "What each key was charged.", labels=("key",)
    )
    for key, flow in flows.keys.items():
        keys.add_metric((key,), flow.amount)
    other = CounterMetricFamily(
        "gigarouter_credited_picocredits",
        "What keys were given: grants, and refunds of calls that were not delivered.",
        labels=("kind",),
    )
    for kind, flow in flows.others.items():
        other.add_metric((kind,), flow.amount)
    yield from (count, units, amount, keys, other)
    yield GaugeMetricFamily(
        "gigarouter_left_picocredits",
        "What prepaid keys can still spend, all together.",
        value=flows.left,
    )
